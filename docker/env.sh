#!/bin/sh
# Writes docker/.env with a login, a password and a token of this installation's own, unless it is
# there. With it, Label Studio and the backend know each other from the first start.
set -eu
cd "$(dirname "$0")"
[ -e .env ] && exit 0
random() { od -An -N20 -tx1 /dev/urandom | tr -d ' \n'; }
umask 077
part=".env.$$"
{
  echo "# The first user of Label Studio, made at its first start."
  echo "LABEL_STUDIO_USERNAME=admin@example.com"
  echo "LABEL_STUDIO_PASSWORD=$(random)"
  echo "# Its token; the backend fetches uploads and pushes tracks with it."
  echo "LABEL_STUDIO_USER_TOKEN=$(random)"
  echo "LABEL_STUDIO_LEGACY_TOKENS=true"
} >"$part"
mv "$part" .env
echo "docker/.env was written: it holds the login and the password for Label Studio." >&2
