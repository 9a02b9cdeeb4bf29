#!/bin/sh
# Collects the root file system of an image: the program, its libraries, certificates, time zones, models and the SBOM.
#
#   root.sh PROGRAM FOLDER [LIBTORCH]
#
# LIBTORCH is a folder of libraries that go to /opt/libtorch.
set -eu

program=$1 root=$2 libtorch=${3:-}
mkdir -p "$root/usr/local/bin" "$root/etc/ssl/certs" "$root/usr/share/zoneinfo" "$root/usr/share/sbom" "$root/opt/millrace/models" \
    "$root/tmp" "$root/data"
chmod 1777 "$root/tmp"
chown 65532:65532 "$root/data"
cp "$program" "$root/usr/local/bin/millrace"
cp /programs/millrace.cdx.json "$root/usr/share/sbom/"

# The libraries that the program is linked with, at the places where the loader looks for them.
LD_LIBRARY_PATH=$libtorch ldd "$program" | sed -nE 's/.*(=> |^\t)(\/[^ ]+) \(0x.*/\2/p' | while IFS= read -r library; do
    case $library in
        "$libtorch"/*) [ -z "$libtorch" ] || continue ;;
    esac
    mkdir -p "$root$(dirname "$library")"
    cp -L "$library" "$root$library"
done
# The C library opens these when it resolves a host.
for library in /lib/*-linux-gnu/libnss_dns.so.2 /lib/*-linux-gnu/libnss_files.so.2 /lib/*-linux-gnu/libresolv.so.2; do
    mkdir -p "$root$(dirname "$library")"
    [ ! -e "$library" ] || cp -L "$library" "$root$library"
done
if [ -n "$libtorch" ]; then
    mkdir -p "$root/opt/libtorch"
    cp -a "$libtorch/." "$root/opt/libtorch/"
fi

# A schedule of a pool names a time zone.
cp -a /usr/share/zoneinfo/. "$root/usr/share/zoneinfo/"
rm -rf "$root/usr/share/zoneinfo/right" "$root/usr/share/zoneinfo/posix"
cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/"
cp -a /models/. "$root/opt/millrace/models/"
printf 'millrace:x:65532:65532:millrace:/tmp:/sbin/nologin\n' >"$root/etc/passwd"
printf 'millrace:x:65532:\n' >"$root/etc/group"
printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
# The folders of libraries are links on Debian.
for folder in lib lib64; do
    [ ! -d "$root/$folder" ] || { mkdir -p "$root/usr/$folder"; cp -a "$root/$folder/." "$root/usr/$folder/"; rm -rf "${root:?}/$folder"; }
    ln -sfn "usr/$folder" "$root/$folder"
done
