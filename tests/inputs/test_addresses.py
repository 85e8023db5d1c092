from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.inputs.addresses import Address, is_address, read_addresses, read_key_variables


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://host:8000/v1", [Address("http://host:8000/v1", None)]),
        ("http://host:8000", [Address("http://host:8000/v1", None)]),
        ("https://api.example.org/v1/#org/model:8b", [Address("https://api.example.org/v1", "org/model:8b")]),
        (
            "http://a:1/v1#m, http://[::1]:2/api/v1#m",
            [Address("http://a:1/v1", "m"), Address("http://[::1]:2/api/v1", "m")],
        ),
    ],
)
def test_addresses_are_read(text: str, expected: list[Address]) -> None:
    assert is_address(text)
    assert read_addresses(text) == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("http://", "must be an address such as"),
        ("http://host:port/v1", "must be an address such as"),
        ("http://a/v1, b/v1", "must be an address such as"),
        ("http://a/v1,", "must be an address such as"),
        ("http://user:hunter2@host/v1", "must not contain a password"),
        ("http://host/v1?key=hunter2", "must not contain"),
        ("http://a/v1#m, http://b/v1#n", "must name the same model"),
        ("http://a/v1, http://a/v1", "names an address twice"),
    ],
)
def test_what_is_no_address_says_so_and_repeats_no_secret(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as caught:
        read_addresses(text)
    assert "hunter2" not in str(caught.value)


def test_models_are_no_addresses() -> None:
    assert not any(map(is_address, ["policy", "base", "org/model", "/a/folder", "./http"]))


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = read_addresses(text)
    except ValueError:
        return
    assert found and all(address.url.startswith("http") and address.host for address in found)


def test_key_variables_are_read_by_host() -> None:
    entries = ["api.openai.com=OPENAI_API_KEY", "10.0.0.5:8000=VLLM_KEY"]
    assert read_key_variables(entries) == {"api.openai.com": "OPENAI_API_KEY", "10.0.0.5:8000": "VLLM_KEY"}
    assert read_key_variables([]) == {}


@pytest.mark.parametrize(
    "entry", ["sk-proj-abc", "host=sk-proj-abc", "OPENAI_API_KEY", "http://host=KEY", "=KEY", "host="]
)
def test_a_key_in_place_of_its_variable_is_refused_and_not_repeated(entry: str) -> None:
    with pytest.raises(ValueError, match="entry 2") as caught:
        read_key_variables(["a=B", entry])
    assert "sk-" not in str(caught.value)
