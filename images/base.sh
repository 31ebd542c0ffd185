#!/usr/bin/env bash
# images/base.sh NAME: a base image with Debian 12 and its Python 3.11, made with mmdebstrap and buildah alone.
# For building where no registry can be reached; it has what the Dockerfile asks of a base and nothing of this machine.
set -euo pipefail
name=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
packages=python3.11,python3.11-venv,ca-certificates,libjemalloc2,libnuma1,libstdc++6,zlib1g
mmdebstrap --quiet --variant=minbase --include="$packages" \
  --aptopt='Apt::Install-Recommends "false"' \
  --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright' \
  bookworm "$folder/root.tar" \
  "deb http://deb.debian.org/debian bookworm main" \
  "deb http://deb.debian.org/debian bookworm-updates main" \
  "deb http://deb.debian.org/debian-security bookworm-security main"
container=$(buildah from scratch)
buildah add --quiet "$container" "$folder/root.tar" / > /dev/null
buildah config --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --cmd python3.11 "$container"
buildah commit --quiet --rm "$container" "$name"
