#!/bin/sh
# What flannel's script of this name does, with the same flags: `mk-docker-opts.sh --help`. heddle is the one in PATH,
# or else the one beside this file.
PATH=${PATH:+$PATH:}$(dirname "$0") exec heddle docker-opts "$@"
