#!/bin/sh
# Prints the path of a Chromium for the report's tests, installing Debian's where we are root; else says why there is none
# and ends with status 1.
set -eu
for name in "${CHROMIUM:-}" chromium chromium-browser google-chrome; do
  if [ -n "$name" ] && command -v "$name"; then exit 0; fi
done
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
  echo "no chromium here; on Debian: apt-get install chromium, or set CHROMIUM to a browser's path" >&2
  exit 1
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
if apt-get update -q >"$log" 2>&1 && apt-get install -q -y --no-install-recommends chromium fonts-dejavu-core >>"$log" 2>&1; then
  rm -f "$log"
  command -v chromium
else
  tail -n 3 "$log" >&2
  rm -f "$log"
  echo "apt-get install chromium failed" >&2
  exit 1
fi
