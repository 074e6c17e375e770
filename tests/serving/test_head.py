"""What the page says of itself before it runs."""

from __future__ import annotations

import httpx
import pytest
from starlette.responses import HTMLResponse, PlainTextResponse
from starlette.testclient import TestClient

from serving.visitors.head import Head
from tests.served import served

GRADIO_S = b'<head>\n<meta\n property="og:title"\n content="Gradio"\n/><meta name="twitter:card" content="x">'


def answered(response, encoding="identity"):
    client = TestClient(Head(response, title='Films & "more"', about="It films.", style="p { color: red }"))
    return client.get("/", headers={"accept-encoding": encoding})


@pytest.mark.parametrize("encoding", ["identity", "gzip, br"])
def test_gradio_s_words_go_and_ours_come_as_text(encoding):
    values = b"""<script>prompt = '<meta property="og:title" content="mine">'</script></head><body>"""
    page = answered(HTMLResponse(GRADIO_S + values), encoding)
    assert page.text.count("og:title") == 2
    assert "Gradio" not in page.text
    assert "twitter" not in page.text
    assert '<meta property="og:title" content="Films &amp; &quot;more&quot;">' in page.text
    assert "<style>p { color: red }</style>" in page.text
    assert page.content.endswith(values)
    assert page.headers["vary"] == "accept-encoding"
    assert page.headers.get("content-encoding", "identity") in encoding
    assert (int(page.headers["content-length"]) == len(page.content)) == (encoding == "identity")


@pytest.mark.parametrize("response", [PlainTextResponse(GRADIO_S + b"</head>"), HTMLResponse("no head")])
def test_what_is_no_page_stays_as_it_is(response):
    assert answered(response).content == response.body


def test_the_real_page_has_one_title_for_previews_also_before_the_login(tmp_path):
    with served("toyland", tmp_path, auth=[("ann", "pw")]) as address, httpx.Client(base_url=address) as client:
        for _ in range(2):
            page = client.get("/").text
            assert page.count('property="og:title"') == 1
            assert '<meta property="og:title" content="Text2Video-Zero">' in page
            assert "Click to try out the app" not in page
            client.post("/login", data={"username": "ann", "password": "pw"}).raise_for_status()
