import pytest

from engine import config
from engine.errors import ConfigError

MINIMAL = '[[line]]\nname = "line1"\nbundle = "models/screw"\n'


def write(folder, text):
    path = folder / "engine.toml"
    path.write_text(text)
    return path


def test_a_line_is_enough_and_the_rest_has_the_documented_defaults(tmp_path):
    loaded = config.load(write(tmp_path, MINIMAL))
    assert loaded.line[0].bundle == str(tmp_path / "models/screw")
    assert loaded.redis.url == "redis://127.0.0.1:6379/0"
    assert loaded.redis.prefix == "engine"
    assert (loaded.batch.max_size, loaded.batch.max_wait_ms) == (8, 5)
    assert loaded.delivery == config.Delivery(
        claim_idle_ms=30000,
        max_deliveries=5,
        max_age_ms=0,
        max_frame_bytes=33554432,
        max_pixels=67108864,
        keep_frames=False,
        frames_maxlen=0,
    )
    assert loaded.publish == config.Publish(mask="anomalous", map="never", results_maxlen=100000, dead_maxlen=10000)
    assert loaded.runtime == config.Runtime(backend="auto", precision="auto", threads=0, cascade="auto")
    assert loaded.drift == config.Drift(enabled=True, window=256, false_signals_per_million=1.0)
    assert loaded.metrics == config.Metrics(host="127.0.0.1", port=0)


def test_an_absolute_bundle_path_stays(tmp_path):
    loaded = config.load(write(tmp_path, '[[line]]\nname = "a"\nbundle = "/models/screw"\n'))
    assert loaded.line[0].bundle == "/models/screw"


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        ("[batch]\nmax_szie = 8\n", "max_szie"),
        ('[batch]\nmax_size = "8"\n', "batch.max_size: expected `int`"),
        (
            '[runtime]\nbackend = "cuda"\n',
            "runtime.backend: expected one of auto, onnx, openvino, tensorrt, triton, got 'cuda'",
        ),
        ('[runtime]\ncascade = "on"\n', "runtime.cascade: expected one of off, auto, a number, got 'on'"),
        ('[[line.region]]\nunit = "mm"\nmask = "a"\n', "line[0].region[0].unit: expected one of px, share, got 'mm'"),
        ("[batch]\nmax_size = 0\n", "batch.max_size"),
        ('[publish]\nmask = "sometimes"\n', "publish.mask"),
        ("[runtime]\ncascade = 0.7\n", "runtime.cascade"),
        ("[delivery]\nmax_pixels = 1.5\n", "delivery.max_pixels"),
        ("[metrics]\nport = 70000\n", "metrics.port"),
        ('[redis]\nprefix = "a b"\n', "redis.prefix"),
        ("[drift]\nwindow = 16\n", "drift.window"),
        ("[drift]\nfalse_signals_per_million = 0\n", "drift.false_signals_per_million"),
        ('[drift]\nenabled = "no"\n', "drift.enabled"),
        ("[cameras]\n", "cameras"),
        ('[[line]]\nname = "line1"\nbundle = "x"\n', "line1 stands twice"),
        ('[[line]]\nname = "a/b"\nbundle = "x"\n', "line[1].name"),
        ('[[line]]\nname = "a"\n', "bundle"),
        ("[batch\n", "not valid TOML"),
        ('[[line.region]]\ncamera = "a"\n', "line[0].region[0]: expected `include`, `ignore` or `mask`"),
        ('[[line.region]]\nmaks = "a.png"\n', "line[0].region[0]"),
        ("[[line.region]]\ninclude = [[[0, 0], [9, 0]]]\n", "include[0]: expected at least 3 points, got 2"),
        (
            "[[line.region]]\nignore = [[[0, 0], [9, 9], [9, 0], [0, 9]]]\n",
            "region[0]: ignore[0]: the edges from point 0",
        ),
        ('[[line.region]]\nunit = "share"\ninclude = [[[0, 0], [2, 0], [1, 1]]]\n', "points in 0..1, got [2, 0]"),
        ("[[line.region]]\ninclude = [[[0, 0], [nan, 0], [1, 1]]]\n", "got [nan, 0]"),
        (2 * '[[line.region]]\ncamera = "a"\nmask = "m"\n', "line[0]: region: a stands twice"),
    ],
)
def test_what_is_not_understood_is_refused_with_the_key(tmp_path, extra, said):
    path = write(tmp_path, MINIMAL + extra)
    with pytest.raises(ConfigError) as refused:
        config.load(path)
    assert said in str(refused.value)
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_file_without_lines_and_a_missing_file_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="line"):
        config.load(write(tmp_path, "[redis]\n"))
    with pytest.raises(ConfigError, match="cannot be read"):
        config.load(tmp_path / "none.toml")


@pytest.mark.parametrize(("text", "value"), [('"off"', "off"), ('"auto"', "auto"), ("0.002", 0.002), ("0.5", 0.5)])
def test_the_cascade_is_off_automatic_or_a_bound(tmp_path, text, value):
    assert config.load(write(tmp_path, f"{MINIMAL}[runtime]\ncascade = {text}\n")).runtime.cascade == value


@pytest.mark.parametrize("key", ["review", "reject"])
def test_thresholds_are_scores(tmp_path, key):
    assert getattr(config.load(write(tmp_path, f"{MINIMAL}{key} = 0.4\n")).line[0], key) == 0.4
    with pytest.raises(ConfigError, match=key):
        config.load(write(tmp_path, f"{MINIMAL}{key} = 1.0\n"))


@pytest.mark.parametrize("text", ["on", "0", "0.6", "-1", "nan"])
def test_a_cascade_that_is_none_is_refused(text):
    assert config.cascade_setting("auto") == "auto"
    assert config.cascade_setting("0.01") == 0.01
    with pytest.raises(ConfigError, match="expected off, auto or a bound"):
        config.cascade_setting(text)


def test_regions_of_a_line_and_its_cameras(tmp_path):
    regions = """
[[line.region]]
mask = "masks/all.png"
[[line.region]]
camera = "cam1"
unit = "share"
include = [[[0, 0], [0.5, 0], [0.5, 1.0]], [[0.5, 0], [1, 0], [1, 1]]]
"""
    whole, own = config.load(write(tmp_path, MINIMAL + regions)).line[0].region
    assert whole == config.LineRegion(mask=str(tmp_path / "masks/all.png"))
    assert (own.camera, own.unit, own.mask, own.include[0]) == ("cam1", "share", None, ((0, 0), (0.5, 0), (0.5, 1)))
