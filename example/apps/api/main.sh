#!/bin/sh
# Answers what an order costs.
. /app/money/money.sh
[ "$1" = --check ] && exec echo "an order costs $(cents 1250)"
while true; do
  echo "an order costs $(cents 1250)"
  sleep 60
done
