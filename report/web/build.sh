#!/bin/sh
# Bundles the report's program into dist/report.js. Where there is no Node.js it says so and leaves specalign without it.
set -eu
cd "$(dirname "$0")"
wanted=20
version=$(node --version 2>/dev/null | sed 's/^v\([0-9]*\).*/\1/') || true
if [ -z "$version" ] || [ "$version" -lt "$wanted" ] || ! command -v npm >/dev/null; then
  echo "build: no Node.js $wanted or later with npm here (found: ${version:-none}); specalign is built without compare --report" >&2
  exit 0
fi
# npm leaves this file when it has installed everything.
if [ ! -e node_modules/.package-lock.json ] || [ package-lock.json -nt node_modules/.package-lock.json ]; then
  npm ci --ignore-scripts --loglevel=error
  touch node_modules/.package-lock.json
fi
node build.mjs
