#!/bin/sh
# Runs for each rack, when the release is live: announce, clean up.
set -eu
echo "$APP_NAME $GIT_HASH is live on $RACK_NAME as $RELEASE_ID"
