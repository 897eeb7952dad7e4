"""Print the entries of a compiled requirements file that another lock file lacks: for an environment on top of its own.
Some that nothing needs are left out.

    python .ci/lock_beside.py compiled.txt requirements.lock

Fails where both pin a package, at different versions: then one environment cannot be put on top of the other.
"""

import re
import sys
from pathlib import Path

LEFT_OUT = {
    "kubernetes",
    "onnxruntime",
    "durationpy",
    "flatbuffers",
    "oauthlib",
    "requests-oauthlib",
    "websocket-client",
    "debugpy",
    "jedi",
    "parso",
}
"""chromadb names the first two for its servers and its own model, and they need the next five: 206 MB, and most
of the time that its packages take to install. ipykernel and IPython name the last three for debuggers and completion:
54 MB. Nothing imports them where a folder is opened or a notebook runs."""


def entries(path):
    """Return name -> (version, text) of each requirement, with its hashes and comments."""
    text = Path(path).read_text(encoding="utf-8")
    found = re.findall(r"^(([a-z0-9._-]+)==(\S+)[^\n]*\n(?:[ #][^\n]*\n)*)", text, re.MULTILINE)
    return {name: (version, whole) for whole, name, version in found}


compiled, other = entries(sys.argv[1]), entries(sys.argv[2])
fights = [
    f"{name}: {version} and {other[name][0]}"
    for name, (version, _) in compiled.items()
    if name in other and other[name][0] != version
]
if fights:
    sys.exit("pins that fight: " + "; ".join(fights))
wanted = [whole for name, (_, whole) in compiled.items() if name not in other and name not in LEFT_OUT]
sys.stdout.write("".join(wanted))
