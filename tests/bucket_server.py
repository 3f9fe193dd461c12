"""gcp-storage-emulator with the header of an object's generation, which TensorStore needs; the argument is the port."""

import contextlib
import sys
import threading

from gcp_storage_emulator import server
from gcp_storage_emulator.exceptions import NotFound
from gcp_storage_emulator.handlers import objects

LOCK, plain = threading.RLock(), objects.download


def in_turn(handler):
    def handle(*arguments, **keywords):
        with LOCK:
            return handler(*arguments, **keywords)

    return handle


def download(request, response, storage, *arguments, **keywords):
    with contextlib.suppress(NotFound):
        found = storage.get_file_obj(request.params["bucket_name"], request.params["object_id"])
        response["x-goog-generation"] = found["generation"]
    return plain(request, response, storage, *arguments, **keywords)


objects.download = download  # which other handlers call
for _, methods in server.HANDLERS:
    handlers = {method: download if handler is plain else handler for method, handler in methods.items()}
    methods.update({method: in_turn(handler) for method, handler in handlers.items()})
server.create_server("127.0.0.1", int(sys.argv[1]), in_memory=True, default_bucket="bucket").run()
