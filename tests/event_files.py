"""Read the event files of TensorBoard."""

import struct
from pathlib import Path

import pytest


def read_events(path: Path) -> list:
    """Return the events of a file: length, its checksum, an event, its checksum, and so on."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    data, place, events = path.read_bytes(), 0, []
    while place < len(data):
        (length,) = struct.unpack_from("<Q", data, place)
        events.append(event_pb2.Event.FromString(data[place + 12 : place + 12 + length]))
        place += 16 + length
    return events


def shown_points(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Return the points (step, value) of each scalar that TensorBoard shows for a folder.

    Its files are read in the order of their names; the start of a session hides the points of its
    step and of later ones. This is what the class EventAccumulator of TensorBoard does.
    """
    points: dict[str, list[tuple[int, float]]] = {}
    for path in sorted(folder.glob("events.*")):
        for event in read_events(path):
            if event.HasField("session_log") and event.session_log.status == 1:  # START
                for name, old in points.items():
                    points[name] = [point for point in old if point[0] < event.step]
            for value in event.summary.value:
                if value.HasField("simple_value"):
                    points.setdefault(value.tag, []).append((event.step, value.simple_value))
    return points
