#!/usr/bin/env python3
"""The reference library's word about tokens of the public index, for the stand-in of the tests.

    macaroons.py create KEY                        prints a token for everything
    macaroons.py check KEY PROJECT ID NOW <TOKEN   exits 0 if the token is good for this project at that time
"""

import sys

import pypitoken

DOMAIN = "index.example"
IDENTIFIER = "3f2504e0-4f89-41d3-9a0c-0305e82c3301"


def main():
    what, key = sys.argv[1:3]
    if what == "create":
        token = pypitoken.Token.create(domain=DOMAIN, identifier=IDENTIFIER, key=key, prefix="pypi")
        print(token.dump())
        return
    project, project_id, now = sys.argv[3:6]
    try:
        token = pypitoken.Token.load(sys.stdin.read())
        token.check(key=key, project_name=project, project_id=project_id, now=int(now))
    # A ValueError is the library's own way of saying that several caveats are not met.
    except (pypitoken.PyPITokenException, ValueError) as why:
        sys.exit(f"refused: {why!r}")


main()
