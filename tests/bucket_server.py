"""gcp-storage-emulator with the header of an object's generation, which TensorStore needs.

The argument is the port.
"""

import contextlib
import sys
import threading

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

LOCK = threading.RLock()
plain = objects.download


def in_turn(handler):
    """`handler`, of which no two calls run at once: the storage is no database."""

    def handle(*arguments, **keywords):
        with LOCK:
            return handler(*arguments, **keywords)

    return handle


def download(request, response, storage, *arguments, **keywords):
    """The emulator's own, and the header."""
    with contextlib.suppress(NotFound):
        found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found["generation"]
    return plain(request, response, storage, *arguments, **keywords)


objects.download = download  # which other handlers call
for _, methods in server.HANDLERS:
    for method, handler in methods.items():
        chosen = download if handler is plain else handler
        methods[method] = in_turn(chosen)
port = int(sys.argv[1])
server.create_server("127.0.0.1", port, in_memory=True, default_bucket="bucket").run()
