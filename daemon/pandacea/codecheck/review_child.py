"""Review one script from standard input and print the warnings as JSON; `review` runs this program in a process of its own.

The script is a stranger's text. Parsing it may take memory, processor time or the stack, so it is parsed here, with the limits of
`check_child`, and never in the process that holds the node's key. Nothing of the script is run.
"""

import json
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from pandacea.codecheck.check_child import set_limits
    from pandacea.domain.code_review import review_code

    set_limits()
    try:
        answer = json.dumps([[one.line, one.reason] for one in review_code(sys.stdin.buffer.read().decode("utf-8"))])
    except MemoryError:
        answer = "null"
    sys.stdout.write(answer)
