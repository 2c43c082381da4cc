"""The API server with nobody behind it: answers like a VMM that accepts everything. Run as a process of its own."""

import sys

from hibana.api.http import Request, Response
from hibana.api.listen import listen
from hibana.api.server import Server
from hibana.bus.loop import Loop

ANSWERS = {
    "/": b'{"id":"anonymous-instance","state":"Not started","vmm_version":"1.17.0-dev","app_name":"Firecracker"}',
    "/machine-config": (
        b'{"vcpu_count":1,"mem_size_mib":128,"smt":false,"track_dirty_pages":false,"huge_pages":"None"}'
    ),
    "/mmds": b'"' + b"m" * 51198 + b'"',
}


def handle(request: Request) -> Response:
    if request.method != "GET":
        return Response(204) if request.body else Response(400, b'{"fault_message":"Empty PUT request."}')
    body = ANSWERS.get(request.path)
    return Response(200, body) if body else Response(400, b'{"fault_message":"Unknown."}')


def main(path: str) -> None:
    loop = Loop()
    Server(listen(path), loop, handle).start()
    loop.run()


if __name__ == "__main__":
    main(sys.argv[1])
