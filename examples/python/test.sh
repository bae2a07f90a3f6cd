#!/usr/bin/env bash
# Proves that the protos alone are enough for a publisher in another language: stubs from proto/, a virtual environment of its own, a real plane.
set -euo pipefail
cd "$(dirname "$0")"
venv=../../.venv
if [ ! -x "$venv/bin/python" ]; then python3 -m venv "$venv"; fi
"$venv/bin/pip" install --quiet --disable-pip-version-check -r requirements.txt
stubs=$(mktemp -d)
trap 'rm -rf "$stubs"' EXIT
"$venv/bin/python" -m grpc_tools.protoc -I ../../proto --python_out="$stubs" --grpc_python_out="$stubs" \
  push/v1/message.proto push/v1/publish.proto google/rpc/status.proto google/rpc/error_details.proto
PYTHONPATH="$stubs:." "$venv/bin/python" -m pytest -q -p no:cacheprovider ${PYTEST_JUNIT:+--junit-xml="$PYTEST_JUNIT"} .
