# Prints an amount of cents as people write it.
cents() {
  printf '%d.%02d' $(($1 / 100)) $(($1 % 100))
}
