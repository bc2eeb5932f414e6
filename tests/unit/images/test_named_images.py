"""How long images that clients name are kept."""

from dualfocus_server.images.named_images import NamedImages


def known(images: NamedImages, *uuids: str) -> list[bool]:
    return [(("one", None, uuid) in images._kept) for uuid in uuids]


async def test_those_used_longest_ago_go_first_where_there_are_too_many_bytes() -> None:
    images = NamedImages(most_bytes=10, most_images=10)
    for uuid in ("a", "b"):
        await images.keep("one", None, uuid, b"12345")
    assert await images.find("one", None, "a") == b"12345"
    await images.keep("one", None, "c", b"123")
    assert known(images, "a", "b", "c") == [True, False, True]


async def test_there_are_no_more_than_so_many_however_small() -> None:
    images = NamedImages(most_bytes=1000, most_images=3)
    for uuid in "abcd":
        await images.keep("one", None, uuid, b"1")
    assert known(images, *"abcd") == [False, True, True, True]


async def test_one_that_is_too_large_is_not_kept_and_its_name_means_nothing_old() -> None:
    images = NamedImages(most_bytes=4, most_images=4)
    await images.keep("one", None, "a", b"1")
    await images.keep("one", None, "a", b"12345")
    assert await images.find("one", None, "a") is None
