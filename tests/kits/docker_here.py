#!/usr/bin/env python3
"""A stand-in for `docker`, first on the PATH of docker/up.sh: runs on this machine what would run in containers.

What it cannot show is the containers themselves. It runs the same psql on the same init.sql, and the same encvec with
the same secrets, where the variables of the test say; the test has them from compose.yaml.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

SECRETS = Path.cwd() / "secrets"
HERE = json.loads(os.environ["DOCKER_HERE"])
words = [word for word in sys.argv[1:]]


def run(command, **variables):
    done = subprocess.run(command, env={**os.environ, **variables}, check=False)
    sys.exit(done.returncode)


def encvec(arguments, **variables):
    secrets = {
        "ENCVEC_KEYS": f"file:{SECRETS}/keys.json",
        "ENCVEC_PASSPHRASE_FILE": f"{SECRETS}/passphrase",
    }
    run([sys.executable, "-m", "encvec_store.cli", *arguments], **secrets, **variables)


with open(HERE["log"], "a", encoding="utf-8") as log:
    log.write(json.dumps(words) + "\n")
match words:
    case ["compose", "version"] | ["compose", "build", *_] | ["compose", "up", *_]:
        pass
    case ["run", "--rm", *_, "encvec-store", "keys", "create"]:
        encvec(["keys", "create"])
    case ["compose", "run", "--rm", "init"]:
        run(
            [HERE["psql"], *HERE["psql options"], "--dbname", HERE["admin"]],
            ENCVEC_PASSWORD_FILE=f"{SECRETS}/encvec_password",
        )
    case ["compose", "run", "--rm", "--no-TTY", "encvec", *arguments]:
        encvec(arguments, ENCVEC_STORE=HERE["store"].replace("SECRETS", str(SECRETS)))
    case _:
        sys.exit(f"docker_here: what is {words}?")
