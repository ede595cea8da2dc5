"""What the JSON APIs share: routing, JSON in and out, bearer checks and event streams."""

from matrix.api._bearer import BearerCheck
from matrix.api._json import dump, read_json, read_model, send_json
from matrix.api._routing import Answering, Api, Check
from matrix.api._sse import EventStream

__all__ = [
    "Answering",
    "Api",
    "BearerCheck",
    "Check",
    "EventStream",
    "dump",
    "read_json",
    "read_model",
    "send_json",
]
