#!/bin/sh
# Takes orders, one every ten seconds.
while true; do
  echo "$GREETING: no orders yet"
  sleep 10
done
