#!/bin/sh
# Runs after a step of the app failed: tell somebody. What it does cannot hide the error.
echo "$APP_NAME $GIT_HASH failed in $OFFBUILD_FAILED_STAGE ($OFFBUILD_FAILURE): $OFFBUILD_ERROR"
