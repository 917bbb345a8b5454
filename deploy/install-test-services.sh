#!/usr/bin/env bash
# What the tests need besides .venv: Debian's RabbitMQ, and OpenStack Swift and an old openai client,
# each in a venv of its own.
set -euo pipefail
cd "$(dirname "$0")/.."

if ! [ -x /usr/lib/rabbitmq/bin/rabbitmq-server ]; then
  if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "tests: installing rabbitmq-server"
    # The tests start private nodes; keep the package from starting one of its own.
    if ! [ -e /usr/sbin/policy-rc.d ]; then
      printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
      chmod +x /usr/sbin/policy-rc.d
    fi
    apt-get update -q
    DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends rabbitmq-server
  else
    echo "tests: RabbitMQ is missing; as root: apt-get install rabbitmq-server" >&2
    exit 1
  fi
fi
.venv/bin/python -m tests.services.swift install
.venv/bin/python -m tests.services.openai1 install
