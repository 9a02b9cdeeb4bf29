"""Writes the files of formats.rs, and prints the values that Pillow reads from them: python files.py (Pillow 13.0)."""
from pathlib import Path
from PIL import Image, ImageOps
import io

folder = Path(__file__).parent / "files"
W, H = 6, 4
colours = [(250, 10, 20), (10, 240, 30), (20, 30, 230), (200, 200, 0), (0, 0, 0), (255, 255, 255)]
rgb = Image.new("RGB", (W, H))
rgb.putdata([colours[(x + 2 * y) % 6] for y in range(H) for x in range(W)])
alpha = rgb.convert("RGBA")
alpha.putalpha(Image.frombytes("L", (W, H), bytes((x * 40 + y) % 256 for y in range(H) for x in range(W))))
smooth = Image.merge("RGB", [Image.frombytes("L", (16, 8), bytes(f(x, y) for y in range(8) for x in range(16)))
                             for f in (lambda x, y: x * 16, lambda x, y: y * 32, lambda x, y: 128)])
exif = Image.Exif()
exif[0x0112] = 6
second = Image.new("RGB", (W, H), (1, 2, 3))
sixteen = Image.frombytes("I;16", (W, H), b"".join((257 * (10 * x + y)).to_bytes(2, "little") for y in range(H) for x in range(W)))
files = {
    "turned.jpg": lambda f: smooth.save(f, "JPEG", quality=95, exif=exif),
    "turned.png": lambda f: rgb.save(f, "PNG", exif=exif),
    "cmyk.jpg": lambda f: smooth.convert("CMYK").save(f, "JPEG", quality=95),
    "progressive.jpg": lambda f: smooth.save(f, "JPEG", quality=95, progressive=True),
    "gray16.png": lambda f: sixteen.save(f, "PNG"),
    "alpha.png": lambda f: alpha.save(f, "PNG"),
    "gray_alpha.png": lambda f: alpha.convert("LA").save(f, "PNG"),
    "palette.png": lambda f: rgb.quantize(8).save(f, "PNG"),
    "palette_transparent.png": lambda f: rgb.quantize(8).save(f, "PNG", transparency=1),
    "alpha.webp": lambda f: alpha.save(f, "WEBP", lossless=True, exact=True),
    "animated.gif": lambda f: rgb.save(f, "GIF", save_all=True, append_images=[second]),
    "animated.webp": lambda f: rgb.save(f, "WEBP", lossless=True, save_all=True, append_images=[second]),
    "colours.bmp": lambda f: rgb.save(f, "BMP"),
}
folder.mkdir(exist_ok=True)
for name, write in files.items():
    with open(folder / name, "wb") as file:
        write(file)
    image = Image.open(folder / name)
    if image.mode == "I;16":
        image = Image.frombytes("L", image.size, image.tobytes()[1::2])
    image = ImageOps.exif_transpose(image).convert("RGB")
    data = image.tobytes()
    pixel = lambda at: list(image.getpixel(at))
    points = [(0, 0), (image.width - 1, 0), (image.width // 2, image.height // 2), (0, image.height - 1)]
    print(f'    ("{name}", {list(image.size)}, {[[x, y, *pixel((x, y))] for x, y in points]}),')
