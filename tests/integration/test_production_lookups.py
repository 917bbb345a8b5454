"""Productions that look things up: similar examples, and passages of documents."""

from __future__ import annotations

import json

import pytest

from tests.integration.lookup_case import Library, embeddings, every, library_fixture, messages
from tests.integration.production_case import PRODUCTIONS, Asked, Said
from tests.integration.test_productions import check_sums, headed

__all__ = ["library_fixture"]

EXAMPLES = """\
name,colour,output
Ruby,red,A red one.
Sky,blue,A blue one.
Rose,red,Another red one.
Moss,green,A green one.
"""
HANDBOOK = """\
# Handbook

Everything that we sell is made to last.

## Returns

Goods may be sent back. Returns are free for 30 days.

## Shipping

Shipping takes two days. Delivery is free.
"""
ASK = "Answer from the sources.\n{{ sources }}\nQuestion: {{ question }}"
QUESTIONS = b"question\nAre returns free?\nWhat about shipping and delivery?\nWho is the king?\n"


def exampled(file_id: str, n: int = 2, more: str = "") -> str:
    return headed(
        f"examples_from: {{file: {file_id}, n: {n}}}\n{more}", "{{ name }} is {{ colour }}"
    )


def grounded(*file_ids: str, more: str = "", body: str = ASK) -> str:
    files = ", ".join(file_ids)
    return headed(
        f"documents: {{files: [{files}], query: '{{{{ question }}}}', n: 2, min_score: 0.3,"
        f" not_found: 'Nothing on {{{{ question }}}}'}}\n{more}",
        body,
    )


# --- examples -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("examples.csv", EXAMPLES),
        (
            "examples.jsonl",
            "".join(
                json.dumps({"input": {"name": name, "colour": colour}, "output": output}) + "\n"
                for name, colour, output in (line.split(",") for line in EXAMPLES.splitlines()[1:])
            ),
        ),
    ],
)
def test_rows_are_shown_the_examples_that_are_like_them(
    library: Library, name: str, content: str
) -> None:
    """Two are as much alike: the earlier in the file is the nearer. The nearest stands last."""
    production_id = library.submit_production(exampled(library.file(content, name)))

    library.run(every())

    chair, table, _ = library.chats
    assert messages(chair) == [
        "Rose is red", "Another red one.", "Ruby is red", "A red one.", "chair is red",
    ]  # fmt: skip
    assert messages(table)[2:] == ["Sky is blue", "A blue one.", "table is blue"]
    assert sorted(library.embedded) == ["1.0.0.0", "2.0.0.0", "3.0.0.0", "corpus.0"]
    check_sums(library, production_id)


def test_examples_are_looked_up_once_for_all_rounds_candidates_and_audiences(
    library: Library,
) -> None:
    more = "n: 2\nretries: 1\ngates: {min_words: 50}\naudiences: [{name: a}, {name: b}]"
    production_id = library.submit_production(exampled(library.file(EXAMPLES, "e.csv"), 1, more))

    library.run(every())

    assert sorted(library.embedded) == ["1.0.0.0", "2.0.0.0", "3.0.0.0", "corpus.0"]
    assert {one.round for one in library.chats} == {0, 1}
    assert len(library.chats) == 2 * 12
    assert all(messages(one)[0] == "Ruby is red" for one in library.chats if one.place[0] == 1)
    check_sums(library, production_id)


def test_many_examples_fill_several_rows_of_the_batch(library: Library) -> None:
    lines = [f"thing {number},blue,A {number}." for number in range(99)] + ["last,green,Found."]
    content = "name,colour,output\n" + "\n".join(lines)
    library.submit_production(exampled(library.file(content, "e.csv"), 1))

    library.run(every())

    assert sum(name.startswith("corpus.") for name in library.embedded) == 4
    assert messages(library.chats[2])[:2] == ["last is green", "Found."]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("name,output\na,b\n", "line 2: it has no 'colour'"),
        ("name,colour,output\na,b,c\na,b,\n", "line 3: it has no 'output'"),
        ("name,colour,output\n", "no examples"),
        ("name,colour,output\na,b\n", "line 2"),
    ],
)
def test_a_file_of_examples_that_can_not_be_used(
    library: Library, content: str, words: str
) -> None:
    production_id = library.submit_production(exampled(library.file(content, "e.csv")))
    library.run(every())

    error = library.see(production_id)["error"]
    assert error["param"] == "template.examples_from.file"
    assert words in error["message"]
    assert not library.asked


# --- documents ------------------------------------------------------------------------------------


def test_items_are_answered_from_passages(library: Library) -> None:
    handbook = library.file(HANDBOOK, "handbook.md")
    page = "<h1>Price list</h1><p>The price of steel is a price.</p><script>red</script>"
    prices = library.file(page, "prices.html")
    production_id = library.submit_production(grounded(handbook, prices), QUESTIONS)

    library.run(every(lambda asked: asked.prompt.splitlines()[1]))

    returns, shipping, king = library.lines(production_id)
    assert returns["output"] == "[1] Handbook > Returns"
    assert json.loads(returns["sources"]) == [
        {
            "number": 1,
            "file": handbook,
            "name": "handbook.md",
            "passage": 2,
            "score": pytest.approx(0.8944, abs=1e-4),
            "text": "Handbook > Returns\nGoods may be sent back. Returns are free for 30 days.",
        }
    ]
    assert shipping["output"] == "[1] Handbook > Shipping"
    assert (king["status"], king["output"]) == ("not_found", "Nothing on Who is the king?")
    assert (king["sources"], king["reason"]) == ("[]", "")
    assert {one.place[0] for one in library.chats} == {1, 2}
    assert library.see(production_id)["summary"]["not_found"] == 1
    check_sums(library, production_id)


def test_a_text_has_to_cite_what_it_was_given(library: Library) -> None:
    """None, one that was not given, and then a good one."""
    template = grounded(
        library.file(HANDBOOK, "h.md"), more="gates: {cites_sources: true}\nretries: 2"
    )
    tries = ["They are free.", "They are free [2].", "They are free [1]."]
    production_id = library.submit_production(template, QUESTIONS)

    library.run(every(lambda asked: tries[asked.round]))

    returns, _, king = library.lines(production_id)
    assert returns["output"] == "They are free [1]."
    assert king["status"] == "not_found"
    summary = library.see(production_id)["summary"]
    assert summary["refusals"] == {"cites_sources": 4}
    assert sum(name.startswith("corpus.") for name in library.embedded) == 1
    check_sums(library, production_id)


def test_a_reply_in_a_dialogue_is_grounded(library: Library) -> None:
    """The history is a text, or a list of turns."""
    history = [{"role": "Customer", "content": "Hi!"}, {"role": "Shop", "content": "Hello!"}]
    rows = [
        {"history": history, "question": "Are returns free?"},
        {"history": "Customer: Hi!", "question": "And shipping?"},
    ]
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    task = "task: {name: dialogue, history: history, columns: [question], words: 20}"
    template = grounded(
        library.file(HANDBOOK, "h.md"), more=f"{task}\ngates: {{cites_sources: true}}", body=""
    )
    production_id = library.submit_production(
        template, content, name="chats.jsonl", output_format="csv"
    )

    library.run(every(lambda asked: "They are [1]."))

    first, second = (one.prompt for one in library.chats)
    assert "Customer: Hi!\nShop: Hello!" in first
    assert "[1] Handbook > Returns" in first
    assert "Are returns free?" in first
    assert "Customer: Hi!" in second
    assert "Shop:" not in second
    assert {line["status"] for line in library.lines(production_id)} == {"succeeded"}
    check_sums(library, production_id)


def test_several_candidates_of_nothing(library: Library) -> None:
    """Each of their lines says so; with ``best_of`` the one line does."""
    for more, lines in (("n: 2", 2), ("n: 2\nbest_of: {rule: longest}", 1)):
        template = grounded(library.file(HANDBOOK, "h.md"), more=more)
        production_id = library.submit_production(template, b"question\nWho is the king?\n")
        library.run(every())

        assert [line["status"] for line in library.lines(production_id)] == ["not_found"] * lines
        check_sums(library, production_id)


def test_documents_and_examples_together(library: Library) -> None:
    examples = library.file("question,output\nAre returns easy?,Yes [1].\n", "e.csv")
    documents = library.file(HANDBOOK, "h.txt")
    template = grounded(documents, more=f"examples_from: {{file: {examples}, n: 1}}")
    production_id = library.submit_production(template, QUESTIONS)

    library.run(every())

    assert messages(library.chats[0])[1] == "Yes [1]."
    assert library.see(production_id)["phases"] == 3
    check_sums(library, production_id)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"\xff\xfe", "not UTF-8"), (b"a\x00b", "no text"), (b"\n \n", "it has no text")],
)
def test_a_document_that_can_not_be_used(library: Library, content: bytes, words: str) -> None:
    good = library.file(HANDBOOK, "h.md")
    bad = library.data(content, "bad.txt")
    production_id = library.submit_production(grounded(good, bad), QUESTIONS)
    library.run(every())

    error = library.see(production_id)["error"]
    assert error["param"] == "template.documents.files[1]"
    assert words in error["message"]
    assert not library.asked


def test_an_embedding_that_fails_ends_its_row_alone(library: Library) -> None:
    def answer(asked: Asked) -> str | Said:
        return Said(code="engine_error") if asked.custom_id == "1.0.0.0" else embeddings(asked)

    def both(asked: Asked) -> str | Said:
        return every()(asked) if "messages" in asked.body else answer(asked)

    production_id = library.submit_production(grounded(library.file(HANDBOOK, "h.md")), QUESTIONS)
    library.run(both)

    assert [line["status"] for line in library.lines(production_id)] == [
        "failed", "succeeded", "not_found",
    ]  # fmt: skip
    check_sums(library, production_id)


def test_a_corpus_that_can_not_be_embedded_fails_every_row(library: Library) -> None:
    def answer(asked: Asked) -> str | Said:
        is_corpus = asked.custom_id.startswith("corpus.")
        return Said(code="out_of_memory") if is_corpus else every()(asked)

    production_id = library.submit_production(grounded(library.file(HANDBOOK, "h.md")), QUESTIONS)
    library.run(answer)

    lines = library.lines(production_id)
    assert {line["reason"].split(":")[0] for line in lines} == {"out_of_memory"}
    assert not library.chats
    check_sums(library, production_id)


def test_cancelled_while_it_looks_things_up(library: Library) -> None:
    production_id = library.submit_production(grounded(library.file(HANDBOOK, "h.md")), QUESTIONS)
    while library.see(production_id)["batch"] is None:
        assert library.work(every())
    assert library.post(f"{PRODUCTIONS}/{production_id}/cancel").status_code == 202
    library.run(every())

    seen = library.see(production_id)
    assert (seen["status"], seen["summary"]["failed"]) == ("cancelled", 3)
    assert {line["reason"].split(":")[0] for line in library.lines(production_id)} == {
        "batch_cancelled"
    }
    check_sums(library, production_id)


# --- files ----------------------------------------------------------------------------------------


def test_files_of_others_are_not_there(library: Library) -> None:
    theirs, mine = library.key, library.new_tenant()
    documents, examples = library.file(HANDBOOK, "h.md"), library.file(EXAMPLES, "e.csv")
    library.key = mine
    templates = {
        "template.documents.files[0]": grounded(documents),
        "template.examples_from.file": exampled(examples),
    }
    for path in (PRODUCTIONS, f"{PRODUCTIONS}/preview"):
        for param, template in templates.items():
            body = {
                "template": template,
                "data_file_id": library.data(),
                "model": "models/writer:1",
            }
            reply = library.post(path, body)
            assert (reply.status_code, reply.json["error"]["param"]) == (404, param)
    library.key = theirs


def test_a_file_of_another_kind_is_refused_by_name(library: Library) -> None:
    for template, param in (
        (grounded(library.file("x", "h.pdf")), "template.documents.files[0]"),
        (exampled(library.file("x", "e.md")), "template.examples_from.file"),
    ):
        body = {"template": template, "data_file_id": library.data(), "model": "models/writer:1"}
        reply = library.post(PRODUCTIONS, body)
        assert (reply.status_code, reply.json["error"]["param"]) == (400, param)
        assert "ends with none of" in reply.json["error"]["message"]


def test_files_stay_while_they_are_needed(library: Library) -> None:
    documents = library.file(HANDBOOK, "h.md")
    production_id = library.submit_production(grounded(documents), QUESTIONS)

    assert library.delete(f"/v1/files/{documents}").status_code == 409
    library.run(every())

    assert library.see(production_id)["status"] == "succeeded"
    assert library.delete(f"/v1/files/{documents}").status_code == 200


def test_a_preview_has_places_for_what_will_be_found(library: Library) -> None:
    body = {
        "template": grounded(library.file(HANDBOOK, "h.md")),
        "data_file_id": library.data(QUESTIONS),
        "model": "models/writer:1",
    }
    reply = library.post(f"{PRODUCTIONS}/preview", body)

    assert reply.status_code == 200, reply.json
    prompt = reply.json["data"][0]["prompts"][-1]["messages"][-1]["content"]
    assert "[1] [a passage]" in prompt
    assert "sources" in reply.json["output_columns"]


def test_a_dry_run_counts_what_is_embedded(library: Library) -> None:
    template = grounded(library.file(HANDBOOK, "h.md"))
    production_id = library.submit_production(template, QUESTIONS, dry_run=True)
    library.run(every())

    seen = library.see(production_id)
    assert seen["status"] == "succeeded", seen
    assert seen["estimate"]["rows"] == 4
