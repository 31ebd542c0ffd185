#!/usr/bin/env bash
# Resolves the .in files again and pins every package by version and hash. Engine packages decide shared versions.
set -euo pipefail
uv=$1
cd "$(dirname "$0")"
pins=$(mktemp)
trap 'rm -f "$pins" "$pins".*' EXIT
compile() { "$uv" pip compile --quiet --no-header --no-annotate --python-version 3.11 "$@"; }

grep -v '^#' engine.in > "$pins.engine"
compile -c "$pins.engine" platform.in -o "$pins.platform"
compile -c "$pins.engine" -c "$pins.platform" dev.in -o "$pins.dev"
# A package stands in one lock only: the first of platform, engine, dev that wants it.
sort -u "$pins.platform" > "$pins.1"
sort -u "$pins.engine" | comm -23 - "$pins.1" > "$pins.2"
sort -u "$pins.dev" | comm -23 - <(sort -u "$pins.1" "$pins.engine") > "$pins.3"
compile --generate-hashes --no-deps "$pins.1" -o platform.lock
compile --generate-hashes --no-deps "$pins.2" -o engine.lock
compile --generate-hashes --no-deps "$pins.3" -o dev.lock
compile --generate-hashes --no-deps bootstrap.in -o bootstrap.lock
