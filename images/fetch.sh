#!/bin/sh
# Runs a command that downloads, trusting the build secret `certificates` where one is given. What it downloads stays
# out of the image, or in a cache that is mounted.
set -eu
export UV_LINK_MODE=copy UV_PYTHON_DOWNLOADS=never PIP_NO_CACHE_DIR=1
if [ -s /run/secrets/certificates ]; then
  export SSL_CERT_FILE=/run/secrets/certificates PIP_CERT=/run/secrets/certificates
fi
if [ -d /root/.cache/uv ]; then
  export UV_CACHE_DIR=/root/.cache/uv
else
  export UV_NO_CACHE=1
fi
exec "$@"
