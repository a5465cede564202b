#!/bin/sh
# Runs once per app, before its images are built: fetch, generate, check.
set -eu
echo "building $APP_NAME at $GIT_HASH ($GIT_DESCRIPTION, branch ${GIT_BRANCH:-none})"
echo "run $OFFBUILD_RUN takes it to: $OFFBUILD_RACKS"
echo "its image will be $DOCKER_TAG"
