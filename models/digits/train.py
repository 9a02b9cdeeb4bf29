#!/usr/bin/env python3
"""Trains the digits model and writes everything in this folder but this file, model.yaml and README.md.

    python3 -m venv digits-venv
    digits-venv/bin/pip install torch==2.11.0 scikit-learn==1.7.2 numpy pillow
    digits-venv/bin/python models/digits/train.py

The data is what scikit-learn carries in its package: 1,797 handwritten digits of 8 x 8 pixels, values 0 to 16. A fifth
of them, stratified by digit, is held out: the network never sees it, and it is written as PNG files to try the model
with. Everything is seeded. Takes some minutes on two CPU cores.
"""

import io
import shutil
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

HERE = Path(__file__).resolve().parent
VERSION = HERE / "1"
HELD_OUT = HERE / "held-out"

SEED = 20
EPOCHS = 60
BATCH = 64
LEARNING_RATE = 3e-3


class Digits(nn.Module):
    """Gray images of 8 x 8 pixels, values 0 to 1, to the logits of ten classes."""

    def __init__(self):
        super().__init__()

        def block(channels_in, channels_out):
            return [nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False), nn.BatchNorm2d(channels_out), nn.ReLU()]

        self.features = nn.Sequential(
            *block(1, 32),
            *block(32, 32),
            nn.MaxPool2d(2),
            *block(32, 64),
            *block(64, 64),
            nn.MaxPool2d(2),
        )
        self.classes = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(64 * 2 * 2, 10))

    def forward(self, image):
        return self.classes(self.features(image))


def as_png(image):
    """The 8-bit gray pixels of an image of values 0 to 16."""
    return np.rint(image * 255.0 / 16.0).astype(np.uint8)


def shifted(images, generator):
    """Each image moved by at most a pixel in each direction: handwriting is not centred."""
    padded = nn.functional.pad(images, (1, 1, 1, 1))
    moved = torch.empty_like(images)
    for dy in range(3):
        for dx in range(3):
            moved_here = padded[:, :, dy : dy + 8, dx : dx + 8]
            if dy == 0 and dx == 0:
                # Half of the images stay where they are.
                place = torch.randint(0, 9, (len(images),), generator=generator)
                stay = torch.rand(len(images), generator=generator) < 0.5
                place = torch.where(stay, torch.tensor(4), place)
            chosen = place == dy * 3 + dx
            moved[chosen] = moved_here[chosen]
    return moved


def train(images, digits):
    """A network that has learned the images."""
    torch.manual_seed(SEED)
    generator = torch.Generator().manual_seed(SEED)
    model = Digits()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=1e-2)
    batches = (len(images) + BATCH - 1) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, epochs=EPOCHS, steps_per_epoch=batches)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    for _ in range(EPOCHS):
        order = torch.randperm(len(images), generator=generator)
        for chosen in order.split(BATCH):
            optimizer.zero_grad()
            loss_of(model(shifted(images[chosen], generator)), digits[chosen]).backward()
            optimizer.step()
            schedule.step()
    return model.eval()


def export(model):
    """The TorchScript file: weights folded into the graph, any batch size."""
    scripted = torch.jit.freeze(torch.jit.script(model))
    buffer = io.BytesIO()
    torch.jit.save(scripted, buffer)
    VERSION.mkdir(exist_ok=True)
    (VERSION / "model.pt").write_bytes(buffer.getvalue())


def write_held_out(indices, pixels, digits):
    """One PNG for each held-out image, named by its place in the data set and its digit."""
    shutil.rmtree(HELD_OUT, ignore_errors=True)
    HELD_OUT.mkdir()
    for index in indices:
        Image.fromarray(pixels[index], mode="L").save(HELD_OUT / f"{index:04}-{digits[index]}.png", optimize=True)


def main():
    data = load_digits()
    pixels = np.stack([as_png(image) for image in data.images])
    learn, held_out = train_test_split(
        np.arange(len(pixels)), test_size=0.2, stratify=data.target, random_state=SEED
    )
    # What a worker will see: the pixels of a PNG, scaled to 0 to 1.
    images = torch.from_numpy(pixels).unsqueeze(1).float() / 255.0
    digits = torch.from_numpy(data.target)

    model = train(images[learn], digits[learn])
    export(model)
    write_held_out(sorted(held_out), pixels, data.target)

    saved = torch.jit.load(str(VERSION / "model.pt"))
    with torch.no_grad():
        right = int((saved(images[held_out]).argmax(1) == digits[held_out]).sum())
        alone = torch.cat([saved(images[index : index + 1]) for index in held_out[:5]])
        assert torch.allclose(alone, saved(images[held_out[:5]]), atol=1e-4), "the batch size changes the answer"
    print(f"held out: {right} of {len(held_out)} right, {right / len(held_out):.2%}")
    print(f"model.pt: {(VERSION / 'model.pt').stat().st_size} bytes")


if __name__ == "__main__":
    main()
