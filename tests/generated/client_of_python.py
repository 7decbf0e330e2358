"""Uses the package that openapi-python-client makes of a pool's description: client_of_python.py URL KEY."""

import json
import sys

from typed_client import AuthenticatedClient
from typed_client.api.commands import fail, find, picture, watch
from typed_client.models import FindArguments, PictureArguments, WatchArguments, WatchLine

url, key = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key, timeout=60.0)

found = find.sync(client=client, body=FindArguments(text="a", limit=1))
first = found.result[0]
lines = [WatchLine(number=1, text="one"), WatchLine(number=2)]
streamed = watch.sync(client=client, body=WatchArguments(lines=lines))
failed = fail.sync_detailed(client=client)
print(
    json.dumps(
        {
            "label": first.label,
            "score": first.score,
            "found": first.found.isoformat(),
            "price": first.price,
            "worker": found.call.worker[:6],
            "lines": [line.number for line in streamed.result],
            "failed": [failed.status_code, failed.parsed.error.code],
            "picture": picture.sync(client=client, body=PictureArguments(data="UE5H")).result.bytes_,
        }
    )
)
