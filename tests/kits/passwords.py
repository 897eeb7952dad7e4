"""URLs and connection strings that hold a password, in every form that people write them."""

import itertools

SCHEMES = [
    "postgresql",
    "postgres",
    "postgresql+psycopg",
    "postgresql+asyncpg",
    "POSTGRESQL",
    "Postgresql+Psycopg2",
    "mysql",
    "faiss",
    "file",
    "x-own",
]
PASSWORDS = [
    "hunter22",
    *(f"hun{sign}ter22" for sign in "@/#?%:[] '\"\\&=+|"),
    "hu@n/t?e=r#22",
    "12/hunter22",
    "12?m=hunter22",
]
"""With every character that means something in a URL."""
SECRET = ("hun", "ter22", "r#22")
"""Parts of these passwords, one of which is in each."""


def urls(host="db.example"):
    """Yield URLs with a password in each place that it may have."""
    for scheme, password in itertools.product(SCHEMES, PASSWORDS):
        yield f"{scheme}://ann:{password}@{host}/shop"
        yield f"{scheme}://:{password}@{host}/shop"
        yield f"{scheme}://ann@{host}/shop?sslmode=require&password={password}"
        yield f"{scheme}://{host}/shop?sslpassword={password}&m=8"
    for password in PASSWORDS:
        quoted = password.replace("\\", "\\\\").replace("'", "\\'")
        yield f"host={host} user=ann password='{quoted}'"


def leaks(text):
    """Return the parts of a password that a text shows."""
    return [part for part in SECRET if part in text]
