#!/bin/sh
# Runs for each rack, when the release is staged and not yet live: migrate, warm up.
set -eu
echo "release $RELEASE_ID of $APP_NAME is ready on $RACK_NAME ($APP_ENV)"
# CONVOX_HOST and CONVOX_PASSWORD are set, so the convox CLI works here, against the release that is to come:
#   convox run web 'rake db:migrate' --app "$APP_NAME" --release "$RELEASE_ID"
echo "the rack is at $CONVOX_HOST"
