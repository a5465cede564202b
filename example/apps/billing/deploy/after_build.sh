#!/bin/sh
# Runs once per app, after its images are built and before they are pushed: try the image.
set -eu
echo "trying $DOCKER_TAG"
docker run --rm "$DOCKER_TAG" /bin/busybox grep -q 'Nothing to pay' /app/index.html
echo "the page is in it"
