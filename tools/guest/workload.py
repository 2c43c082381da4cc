"""Compute things whose results are known to the last bit: run in the guest and on the host, the outputs must agree."""

import hashlib
import json
import math
import zlib


def fibonacci(n: int) -> int:
    return n if n < 2 else fibonacci(n - 1) + fibonacci(n - 2)


def floats() -> float:
    """Use every class of SSE arithmetic; IEEE 754 fixes each bit of the result."""
    total = 0.0
    for i in range(1, 60_000):
        total += math.sqrt(i) / (i + 0.5) - 1.0 / (i * i)
        total *= 0.9999
    return total


def documents() -> str:
    rows = [{"row": i, "name": f"row {i}", "third": i / 3, "even": i % 2 == 0} for i in range(400)]
    text = json.dumps(rows)
    for _ in range(10):
        text = json.dumps(json.loads(text))
    return hashlib.md5(text.encode()).hexdigest()


def main() -> None:
    """Print one line per result."""
    block = bytes(range(256)) * 4096
    squeezed = zlib.compress(block, 6)
    print("fibonacci", fibonacci(22))
    print("floats", floats().hex())
    print("integers", pow(3, 4000, 2**255 - 19))
    print("json", documents())
    print("sha256", hashlib.sha256(block * 4).hexdigest())
    print("zlib", zlib.crc32(zlib.decompress(squeezed)), zlib.adler32(block))


if __name__ == "__main__":
    main()
