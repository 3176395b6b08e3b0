"""Limits of this process's resources, for tests of what happens when they are used up."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def limited(name: str, limit: int) -> Iterator[None]:
    """Limit a resource of this process, such as RLIMIT_FSIZE."""
    kind = getattr(resource, name)
    before = resource.getrlimit(kind)
    resource.setrlimit(kind, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(kind, before)


@contextmanager
def free_descriptors(count: int) -> Iterator[None]:
    """Leave this process `count` file descriptors that it can open."""
    held = []
    with limited("RLIMIT_NOFILE", 512):
        try:
            while len(held) < 512:
                held.append(os.open(os.devnull, os.O_RDONLY))
        except OSError:
            pass
        for descriptor in held[:count]:
            os.close(descriptor)
        try:
            yield
        finally:
            for descriptor in held[count:]:
                os.close(descriptor)
