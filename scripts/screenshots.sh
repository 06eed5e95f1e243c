#!/bin/sh
# Takes the pictures of the box's own pages for the admin guide, at the width of a phone and of a desk.
# Usage: screenshots.sh   (needs the Debian packages chromium and chromium-driver)
set -eu
cd "$(dirname "$0")/.."
pictures=$PWD/docs/user/admin/pictures
mkdir -p "$pictures"
ARINT_PYTHON=$(scripts/python-env.sh)
ARINT_SCREENSHOTS=$pictures
export ARINT_PYTHON ARINT_SCREENSHOTS
cargo test --quiet --package services --test system browser::
