#!/bin/sh
# A change as a corrected text makes it: one file of the image is another.  What an adaptive update fetches for it.
set -eu
echo "corrected" > "$1/usr/share/arint-minor-change"
