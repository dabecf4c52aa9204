"""The task seq2seq from the command line: what is read, learned, predicted, scored, compared and refused."""

import json
from functools import partial
from itertools import groupby

import pytest
import sacrebleu
import torch
from conftest import DATA_SHELF, run_toolkit
from hypothesis import given, settings
from hypothesis import strategies as st
from loopback import run_in_process
from safetensors.torch import load_file

from tasks import TASKS, predict
from tasks.inference import Predictor
from tasks.task import SearchArguments
from toolkit.corpora.symbols import split_tags, symbols_of, train_symbol_tokenizer
from toolkit.data.pairs import PairColumns, open_pairs
from toolkit.errors import InputError
from toolkit.metrics.sequences import sequence_scores

PLAIN = ["--encoder", "scratch:lstm-tiny", "--target_units", "words"]
PAIRS = "word\tphonemes\tkind\nlead\tL IY D\tverb\nlead\tL EH D\tnoun\nred\tR EH D\tadj\nread\tR EH D\tverb\n"


def run(*words) -> str:
    done = run_in_process(*map(str, words))
    assert done.returncode == 0, done.stderr
    return done.stdout


def read(folder) -> dict:
    return json.loads((folder / "results.json").read_text())


def lines_of(folder) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A model that has learned to spell numbers, not perfectly."""
    folder = tmp_path_factory.mktemp("numbers") / "model"
    run("finetune", "seq2seq", *PLAIN, "--data", "sample", "--max_steps", 300, "--output_dir", folder)
    return folder


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A folder with few numbers."""
    folder, columns = tmp_path_factory.mktemp("few"), PairColumns()
    for split, size in (("train", 40), ("validation", 6), ("test", 6)):
        rows = open_pairs("sample", columns).load(split).select(range(size))
        rows.to_json(folder / f"{split}.jsonl", force_ascii=False)
    return folder


@pytest.fixture
def pairs(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text(PAIRS)
    return file


# Data


def test_rows_with_one_source_are_its_right_answers(pairs):
    rows = open_pairs(str(pairs), PairColumns()).load(None)
    assert rows.to_list() == [
        {"source": "lead", "targets": ["L IY D", "L EH D"]},
        {"source": "red", "targets": ["R EH D"]},
        {"source": "read", "targets": ["R EH D"]},
    ]
    columns = PairColumns(feature_columns=["kind"], where=["kind=verb"], remove="[AEIOU]+. ?")
    rows = open_pairs(str(pairs), columns).load(None)
    assert rows.to_list() == [
        {"source": "<verb>lead", "targets": ["L D"]},
        {"source": "<verb>read", "targets": ["R D"]},
    ]


def test_a_list_of_targets_and_values_of_several_tags(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"src": " talo  a", "tgt": ["x", "y", "x"], "tags": "N;GEN SG"}\n')
    rows = open_pairs(str(file), PairColumns(feature_columns=["tags"])).load(None)
    assert rows.to_list() == [{"source": "<N><GEN><SG>talo a", "targets": ["x", "y"]}]
    assert split_tags("<N><GEN>ta<lo>") == (["<N>", "<GEN>"], "ta<lo>")


@pytest.mark.parametrize("units", ["characters", "words", "pieces"])
@given(st.lists(st.text("ab é'-<.", min_size=1).map(lambda text: " ".join(text.split())).filter(bool), min_size=1))
@settings(max_examples=50, deadline=None)
def test_tokenizers_give_every_target_back(units, texts):
    tokenizer = train_symbol_tokenizer(texts, units, 500)
    for text in texts:
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.cls_token_id, tokenizer.sep_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False) == text
    again = train_symbol_tokenizer(texts, units, 500)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()


# Figures


def edit_distance(first, second) -> int:
    """By its definition: https://doi.org/10.1145/321796.321811."""
    if not first or not second:
        return len(first) + len(second)
    if first[-1] == second[-1]:
        return edit_distance(first[:-1], second[:-1])
    return 1 + min(
        edit_distance(first[:-1], second),
        edit_distance(first, second[:-1]),
        edit_distance(first[:-1], second[:-1]),
    )


def test_figures_equal_their_definitions_and_sacrebleu():
    predicted = ["the cat sat", "on a mat", "hello", "xy", ""]
    right = [["the cat sits", "a cat sat"], ["on the mat"], ["hello"], ["ab c"], ["word"]]
    for units in ("characters", "words"):
        figures = sequence_scores(predicted, right, partial(symbols_of, units=units))
        found = {name: figure.value for name, figure in figures.items()}
        edits = lengths = 0
        for text, answers in zip(predicted, right, strict=True):
            distances = [edit_distance(symbols_of(text, units), symbols_of(answer, units)) for answer in answers]
            edits += min(distances)
            lengths += len(symbols_of(answers[distances.index(min(distances))], units))
        assert found["symbol_error_rate"] == pytest.approx(edits / lengths)
        assert found["exact_match"] == pytest.approx(1 / 5)
        assert found["word_error_rate"] == pytest.approx(4 / 5)
    references = [[answers[place % len(answers)] for answers in right] for place in range(2)]
    score = sacrebleu.CHRF().corpus_score(predicted, references).score
    assert found["chrf"] == pytest.approx(score / 100, abs=1e-6)


# Training, prediction


def test_it_learns_to_spell_numbers_and_the_record_says_how_well(numbers):
    record, lines = read(numbers), lines_of(numbers)
    right = [line["predicted"] in line["targets"] for line in lines]
    assert record["metrics"]["exact_match"]["value"] == pytest.approx(sum(right) / len(right))
    assert 0.4 < sum(right) / len(right) < 1
    assert (record["task"], record["split"], record["n"]) == ("seq2seq", "test", 300)
    assert record["throughput_unit"] == "pairs/s"
    assert all(len(line["candidates"]) == 5 for line in lines)


def test_beams_find_targets_that_are_at_least_as_likely_as_those_of_greedy_search(numbers):
    sources = [{"source": line["source"]} for line in lines_of(numbers)]
    by_search = {}
    for num_beams, length_penalty in ((1, None), (5, 0.0)):
        search = SearchArguments(num_beams=num_beams, length_penalty=length_penalty)
        found = Predictor(TASKS["seq2seq"], str(numbers), search)(sources)
        by_search[num_beams] = sum(torch.tensor([each.probabilities[0] for each in found]).log()).item()
    assert by_search[5] >= by_search[1]


def test_scoring_and_predicting_again_give_the_same(numbers, tmp_path):
    run("score", numbers, "--data", "sample", "--output_file", tmp_path / "score.json")
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == read(numbers)["metrics"]
    lines = lines_of(numbers)[:6]
    alone = [predict(str(numbers), [line["source"]])[0] for line in lines]  # without the padding of a batch
    assert [each["predicted"] for each in alone] == [line["predicted"] for line in lines]
    for each, line in zip(alone, lines, strict=True):
        of_batch = [candidate["probability"] for candidate in line["candidates"]]
        assert [candidate["probability"] for candidate in each["candidates"]] == pytest.approx(of_batch, abs=1e-4)


def test_the_best_answers_are_shown_with_their_probabilities(numbers, tmp_path):
    file = tmp_path / "sources.csv"
    file.write_text("source\n<ordinal>121\n<cardinal>7\n")
    shown = run("predict", numbers, file, "--num_return_sequences", 3)
    rows = [line.split("\t") for line in shown.splitlines()]
    assert [row[2] for row in rows] == ["<ordinal>121"] * 3 + ["<cardinal>7"] * 3
    assert all(0 <= float(row[1]) <= 1 for row in rows)
    (best,) = run("predict", numbers, "<ordinal>121").splitlines()
    assert best.split("\t") == rows[0]
    (line,) = run("predict", numbers, "<ordinal>121", "--output_format", "jsonl", "--num_beams", 2).splitlines()
    assert len(json.loads(line)["candidates"]) == 2


def test_columns_of_the_training_data_are_read_again(pairs, tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.tsv").write_text(PAIRS)
    flags = ["--feature_columns", "kind", "--remove", "L ", "--max_steps", 2, "--num_beams", 2]
    run("finetune", "seq2seq", *PLAIN, "--data", tmp_path / "data", "--output_dir", tmp_path / "model", *flags)
    shown = run("predict", tmp_path / "model", pairs)
    sources = [line.split("\t")[2] for line in shown.splitlines()]
    assert sources == ["<verb>lead", "<noun>lead", "<adj>red", "<verb>read"]
    run("score", tmp_path / "model", "--data", pairs, "--output_file", tmp_path / "score.json")
    assert json.loads((tmp_path / "score.json").read_text())["n"] == 4


def test_scoring_says_which_rows_the_model_was_trained_on(pairs, tmp_path):
    flags = [*PLAIN, "--max_steps", 1, "--max_new_tokens", 4, "--data", tmp_path / "data", "--where", "kind=verb"]
    (tmp_path / "data").mkdir()
    for split in ("train", "validation"):
        (tmp_path / "data" / f"{split}.tsv").write_text(PAIRS)
    run("finetune", "seq2seq", *flags, "--output_dir", tmp_path / "model")
    done = run_toolkit("score", tmp_path / "model", "--data", pairs)
    assert done.returncode == 0
    assert "the model was trained on rows with kind=verb; --where selects rows here" in done.stderr
    done = run_toolkit("score", tmp_path / "model", "--data", pairs, "--where", "kind=noun")
    assert (done.returncode, "was trained on" in done.stderr) == (0, False)


def test_symbols_that_training_did_not_have_are_named(numbers):
    done = run_toolkit("predict", numbers, "12", "<tens>1a2")
    assert done.returncode == 2
    assert "'<tens>1a2'" in done.stderr
    assert "'<tens>', 'a'" in done.stderr
    done = run_toolkit("predict", numbers, "12", "<tens>1a2", "--skip_broken")
    assert done.returncode == 0
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == ["12"]
    assert "left out '<tens>1a2'" in done.stderr


def test_words_that_training_did_not_have_are_read_as_unknown_and_named(few, tmp_path):
    flags = ["--encoder", "scratch:gru-tiny", "--source_units", "words", "--max_steps", 2, "--max_new_tokens", 4]
    run("finetune", "seq2seq", *flags, "--data", few, "--output_dir", tmp_path / "model")
    done = run_in_process("predict", str(tmp_path / "model"), "<cardinal>forty two")
    assert done.returncode == 0
    assert "warning: '<cardinal>forty two': the model has never seen 'forty', 'two'" in done.stderr


def test_the_same_command_gives_the_same_weights_and_a_stopped_run_goes_on(tmp_path):
    flags = [*PLAIN, "--data", "sample", "--train_size", 200, "--batch_size", 16]
    whole = ["finetune", "seq2seq", *flags, "--max_steps", 12, "--save_steps", 4, "--save_total_limit", 5]
    run(*whole, "--output_dir", tmp_path / "first")
    run(*whole, "--output_dir", tmp_path / "second")
    first, second = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("first", "second"))
    assert first == second
    for name in ("checkpoint-00000008", "checkpoint-00000012"):
        for file in (tmp_path / "second" / name).iterdir():
            file.unlink()
        (tmp_path / "second" / name).rmdir()
    (tmp_path / "second" / "results.json").unlink()
    run(*whole, "--output_dir", tmp_path / "second", "--resume")
    assert (tmp_path / "second" / "model.safetensors").read_bytes() == first
    assert read(tmp_path / "second")["metrics"] == read(tmp_path / "first")["metrics"]


def test_pairs_are_read_from_a_hub(few, hub, tmp_path):
    assert hub.run("push", few, "me/numbers", "--repo_type", "dataset").returncode == 0
    flags = ["finetune", "seq2seq", *PLAIN, "--max_steps", "2", "--max_new_tokens", "4"]
    for name, data in (("by_name", "me/numbers"), ("by_folder", few)):
        done = hub.run(*flags, "--data", data, "--output_dir", tmp_path / name)
        assert done.returncode == 0, done.stderr
    assert read(tmp_path / "by_name")["metrics"] == read(tmp_path / "by_folder")["metrics"]
    assert read(tmp_path / "by_name")["n"] == 6


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ["lstm-tiny", "bert-tiny"])
def test_one_process_with_a_batch_of_16_and_two_with_8_agree(encoder, few, tmp_path):
    flags = ["--encoder", f"scratch:{encoder}", "--target_units", "words", "--data", few, "--dropout", "0"]
    flags += ["--max_steps", "6", "--batch_size", "16", "--logging_steps", "1"]
    for number in (1, 2):
        output = ["--output_dir", tmp_path / str(number), "--max_new_tokens", "8"]
        done = run_toolkit("finetune", "seq2seq", *flags, *output, num_processes=number)
        assert done.returncode == 0, done.stderr
    losses, weights = (
        [[json.loads(line).get("loss") for line in (tmp_path / n / "train_log.jsonl").open()] for n in "12"],
        [load_file(tmp_path / n / "model.safetensors") for n in "12"],
    )
    assert [x for x in losses[0] if x] == pytest.approx([x for x in losses[1] if x], abs=1e-5)
    for name, tensor in weights[0].items():
        torch.testing.assert_close(tensor, weights[1][name], rtol=0, atol=1e-5)


# Pretrained encoders and decoders


@pytest.mark.parametrize("decoder", ["lstm", "transformer"])
@pytest.mark.parametrize("family", ["bert", "elmo", "word2vec"])
def test_any_encoder_gets_any_decoder(family, decoder, encoders, few, tmp_path):
    flags = ["--encoder", encoders[family], "--decoder", decoder, "--data", few, "--max_new_tokens", 12]
    run("finetune", "seq2seq", *flags, "--max_steps", 3, "--output_dir", tmp_path / "model")
    (line,) = predict(str(tmp_path / "model"), ["<ordinal>21"])
    assert len(line["candidates"]) == 5
    run("score", tmp_path / "model", "--data", few, "--output_file", tmp_path / "score.json")
    assert json.loads((tmp_path / "score.json").read_text())["metrics"] == read(tmp_path / "model")["metrics"]


def test_a_comparison_starts_both_encoder_and_decoder_from_scratch(few, tmp_path, corpus):
    language_model = tmp_path / "letters"
    flags = ["--preset", "lstm-tiny", "--units", "characters", "--num_directions", 1, "--max_steps", 5]
    run("pretrain", "rnn", *flags, "--corpus", corpus, "--output_dir", language_model)
    flags = ["--encoders", language_model, "--decoder", language_model, "--data", few, "--train_sizes", 40]
    flags += ["--seeds", 1, "--max_steps", 2, "--learning_rates", "1e-3", "--max_new_tokens", 12]
    flags += ["--output_dir", tmp_path / "compared"]
    shown = run("compare", "--task", "seq2seq", *flags)
    assert "exact_match, 40 labels" in shown
    used = {}
    for file in (tmp_path / "compared").rglob("seed0-*/results.json"):
        arguments = json.loads(file.read_text())["arguments"]
        used[file.parent.parent.name] = (arguments["encoder"], arguments["decoder"])
    path = str(language_model)
    assert used == {"pretrained-40": (path, path), "scratch-40": ("scratch:" + path, "scratch:" + path)}


# What is refused


@pytest.mark.parametrize(
    ("table", "flags", "message"),
    [
        (PAIRS, ["--source_column", "w"], "--source_column w: no such column"),
        (PAIRS, ["--feature_columns", "x"], "--feature_columns x: no such column"),
        (PAIRS, ["--where", "kind=adverb"], "--where kind=adverb: no row"),
        (PAIRS, ["--where", "kind"], "--where kind: expected COLUMN=VALUE"),
        (PAIRS, ["--remove", "["], "--remove [: not a regular expression"),
        (PAIRS, ["--remove", ".*"], "row 1 has an empty target"),
        (PAIRS, ["--num_beams", "0"], "--num_beams 0: expected a number greater than zero"),
        (PAIRS, ["--num_beams", "1", "--length_penalty", "0.7"], "--length_penalty 0.7: --num_beams 1 compares no"),
        (PAIRS, ["--vocab_size", "5"], "--vocab_size 5: expected more than 5"),
        (PAIRS, ["--decoder", "lstn"], "--decoder lstn: expected rnn, gru, lstm, transformer"),
        (PAIRS, ["--decoder", "scratch:bert-tiny"], "--decoder scratch:bert-tiny: expected"),
        (PAIRS.replace("R EH D\tadj", " \tadj"), [], "row 3 has no phonemes"),
        ("a\tb\nx\ty\n", [], "none of the columns a, b is called source"),
        ("source\ttarget\n" + "".join(f"{i}\tA A\n" for i in range(20)), [], "all targets consist of one symbol, 'A'"),
        ("source\ttarget\nab\tA B\n", [], "1 examples, too few to train and validate on"),
    ],
)
def test_bad_input_gets_one_line(table, flags, message, tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_text(table)
    done = run_toolkit("finetune", "seq2seq", *PLAIN, "--data", file, "--output_dir", tmp_path / "out", *flags)
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count("toolkit: error:") == 1
    assert not (tmp_path / "out").exists()


def test_texts_are_expected_where_a_column_holds_numbers(tmp_path):
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"source": 0, "target": "zero"}\n{"source": 1, "target": "one"}\n')
    done = run_toolkit("finetune", "seq2seq", *PLAIN, "--data", file, "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert "the column 'source' holds 0, expected texts" in done.stderr


def test_a_decoder_must_be_a_language_model(taggers, few, tmp_path):
    flags = [*PLAIN, "--data", few, "--decoder", taggers["bert"]]
    done = run_toolkit("finetune", "seq2seq", *flags, "--output_dir", tmp_path / "out")
    assert done.returncode == 2
    assert f"--decoder {taggers['bert']}: holds BertForTokenClassification, no language model" in done.stderr


def test_no_more_is_generated_than_a_transformer_has_places_for(tmp_path):
    file = tmp_path / "pairs.csv"
    file.write_text("source,target\n" + "".join(f"{i},{'xy'[i % 2] * 300}\n" for i in range(9)))
    flags = ["--encoder", "scratch:lstm-tiny", "--decoder", "transformer", "--decoder_hidden_size", 64, "--data", file]
    flags += ["--max_steps", 1, "--num_beams", 1]
    run("finetune", "seq2seq", *flags, "--output_dir", tmp_path / "model")
    assert json.loads((tmp_path / "model" / "generation_config.json").read_text())["max_new_tokens"] == 512
    done = run_toolkit("predict", tmp_path / "model", "12", "--max_new_tokens", "600")
    assert done.returncode == 2
    assert "--max_new_tokens 600: the decoder takes 512 at most" in done.stderr


def test_rows_of_a_table_without_a_source_and_sources_that_cannot_be_read_are_left_out(numbers, tmp_path):
    file = tmp_path / "sources.csv"
    file.write_text('source,note\n12,a\n"  ",b\n,c\n')
    done = run_toolkit("predict", numbers, file)
    assert done.returncode == 0
    assert [line.split("\t")[2] for line in done.stdout.splitlines()] == ["12"]
    assert "no source: 2 of 3 rows" in done.stderr
    done = run_toolkit("predict", numbers, "1a2", "--skip_broken")
    assert (done.returncode, done.stdout) == (0, "")


def test_a_source_or_target_longer_than_a_transformer_takes_is_named(tmp_path):
    for source, target, what in (("a" * 600, "x y", "source"), ("ab", "x " * 600, "target")):
        file = tmp_path / "pairs.csv"
        file.write_text("source,target\n" + "".join(f"{i},{'xy'[i % 2]}\n" for i in range(9)) + f"{source},{target}\n")
        flags = ["--encoder", "scratch:bert-tiny", "--decoder", "transformer", "--target_units", "words"]
        done = run_toolkit("finetune", "seq2seq", *flags, "--data", file, "--output_dir", tmp_path / "out")
        assert done.returncode == 2
        assert f"the {what} of '{source[:9]}" in done.stderr
        assert "512" in done.stderr


def test_flags_of_the_search_belong_to_models_that_generate(taggers):
    with pytest.raises(InputError, match="--num_beams 3: the task pos has no search"):
        Predictor(TASKS["pos"], str(taggers["elmo"]), SearchArguments(num_beams=3))


@pytest.mark.slow
@pytest.mark.skipif(not (DATA_SHELF / "inflection").is_dir(), reason=f"no inflection data in {DATA_SHELF}")
def test_inflection_of_spanish_beats_suffix_rules(tmp_path):
    """Suffix rules: .851."""
    flags = ["--data", DATA_SHELF / "inflection", "--feature_columns", "tags", "--where", "language=spanish"]
    flags += ["--encoder", "scratch:lstm-tiny", "--max_steps", 1500]
    run("finetune", "seq2seq", *flags, "--output_dir", tmp_path / "model")
    assert read(tmp_path / "model")["metrics"]["exact_match"]["value"] > 0.851
    assert {key for key, _ in groupby(sorted(line["units"] for line in lines_of(tmp_path / "model")))} == {
        "characters"
    }
