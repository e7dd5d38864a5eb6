"""Random bytes are never given twice: a nonce used twice under one key gives two decisions away."""

import os
import threading

from cde_serving.records.randomness import DRAWN, random_bytes


def test_no_bytes_are_given_twice_within_and_between_threads():
    given: list[bytes] = []

    def draw() -> None:
        given.extend(random_bytes(12) for _ in range(2 * DRAWN // 12))

    threads = [threading.Thread(target=draw) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 4 * (2 * DRAWN // 12) == len(set(given))
    assert {12} == {len(one) for one in given}


def test_a_forked_process_draws_its_own():
    random_bytes(1)  # something is left to be used
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, random_bytes(32))
        os._exit(0)
    ours = random_bytes(32)
    os.waitpid(child, 0)
    theirs = os.read(reader, 32)
    os.close(reader)
    os.close(writer)

    assert 32 == len(theirs)
    assert ours != theirs
