"The prediction command: pictures as they come, views, batches, what is printed, and files that mean harm."
import io, json, os, pickle, struct, subprocess, sys, threading, warnings, zlib
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from PIL import Image
from fastai.vision.all import first, xresnet18
from hypothesis import given, settings, strategies as st
from safetensors.torch import save_file
from torchvision.transforms.v2 import functional as TF

from conftest import ROOT
from imagenette_course import models, predict as predict_module
from imagenette_course.baseline import fit, get_learner
from imagenette_course.core import BadInput
from imagenette_course.files import NamedImage, to_rgb
from imagenette_course.dataset import CLASSES, get_dls
from imagenette_course.models import Classifier, load_model, save_model
from imagenette_course.predict import *
from imagenette_course.speed import cached_dls

few = settings(deadline=None, max_examples=25)
FACTS = dict(arch='xresnet18', classes=list(CLASSES.values()), size=32, presize=64, mean=[.485, .456, .406], std=[.229, .224, .225], accuracy=.5)

@cache
def weights(n=10):
    "Of an untrained network, quieted so that no answer is near 0 or 1."
    torch.manual_seed(0)
    w = {k: v.contiguous() for k,v in xresnet18(n_out=n).state_dict().items()}
    return {k: v*.1 if k == '11.weight' else v for k,v in w.items()}

def write_model(path, tensors=None, metadata=None, **change):
    "A model file as `save_model` writes it, or one with a difference."
    save_file(weights() if tensors is None else tensors, path, metadata=metadata or {'imagenette_course': json.dumps({**FACTS, **change})})
    return path

@pytest.fixture(scope='module')
def model_file(tmp_path_factory): return write_model(tmp_path_factory.mktemp('model')/'m.safetensors')

@pytest.fixture(scope='module')
def clf(model_file): return load_model(model_file)

@pytest.fixture(scope='module')
def quick():
    "A network of two layers, that sees colours and places."
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 8, 8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 10))
    return Classifier(net, *(FACTS[o] for o in ('classes', 'size', 'presize', 'mean', 'std')))

def scene(h=60, w=80, seed=0):
    "A smooth coloured picture."
    small = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((w, h), Image.Resampling.BICUBIC)

def png(w, h, bits=8, colour=0, data=b''):
    "A PNG file by hand; its header may claim what its data can't hold."
    def chunk(kind, b): return struct.pack('>I', len(b)) + kind + b + struct.pack('>I', zlib.crc32(kind + b))
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, bits, colour, 0, 0, 0)) + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')

def numbers(o, clf): return [o[name] for name in clf.classes]

# ---- pictures of all kinds

def animation(folder, kind):
    f = folder/f'moving.{kind}'
    scene(seed=1).save(f, save_all=True, append_images=[scene(seed=2), scene(seed=3)])
    with Image.open(f) as im: assert im.n_frames == 3
    return f

def palette(folder):
    im = scene().quantize(16)
    im.save(folder/'palette.png', transparency=bytes([0, 128] + [255]*14))
    return folder/'palette.png'

def saved(folder, name, im, **kwargs):
    im.save(folder/name, **kwargs)
    return folder/name

def with_alpha(mode):
    im = scene().convert(mode)
    im.putalpha(Image.linear_gradient('L').resize(im.size))
    return im

def turned(folder):
    exif = Image.Exif()
    exif[0x112] = 6 # a quarter turn
    return saved(folder, 'turned.jpg', scene(), exif=exif)

KINDS = dict(
    jpeg=lambda d: saved(d, 'a.jpg', scene()), grey=lambda d: saved(d, 'grey.jpg', scene().convert('L')), cmyk=lambda d: saved(d, 'cmyk.jpg', scene().convert('CMYK')),
    bits=lambda d: saved(d, 'bits.png', scene().convert('1')), rgba=lambda d: saved(d, 'rgba.png', with_alpha('RGB')), la=lambda d: saved(d, 'la.png', with_alpha('L')),
    palette=palette, gif=partial(animation, kind='gif'), webp=partial(animation, kind='webp'), apng=partial(animation, kind='png'),
    tiff=lambda d: saved(d, 'a.tif', scene()), bmp=lambda d: saved(d, 'a.bmp', scene()), lab=lambda d: saved(d, 'lab.tif', Image.new('LAB', (40, 30), (128, 90, 200))),
    wide=lambda d: saved(d, 'wide.png', scene(3, 700)), high=lambda d: saved(d, 'high.png', scene(500, 1)), pixel=lambda d: saved(d, 'pixel.png', scene(1, 1)),
    colour16=lambda d: [(d/'c16.png').write_bytes(png(20, 10, 16, 2, bytes(range(1, 122))*10)), d/'c16.png'][1], turned=turned)

def test_each_kind_is_asked_as_by_load_model(quick, tmp_path):
    "The very same input, the answer up to rounding, and no warning."
    for kind in KINDS:
        f = KINDS[kind](tmp_path)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            [row] = predict_files(quick, f)
        with warnings.catch_warnings(): # Pillow's, of transparency in a palette
            warnings.filterwarnings('ignore', module='PIL')
            assert torch.equal(predict_module._inputs(str(f), quick, 0), quick.prepare(TF.pil_to_tensor(NamedImage.create(f))[None]))
            want = quick(f)
        assert row['fault'] is None and numbers(row['probabilities'], quick) == pytest.approx(numbers(want, quick), abs=1e-5)
        assert list(row['probabilities'].values()) == sorted(row['probabilities'].values(), reverse=True)

def test_the_first_picture_of_an_animation(quick, tmp_path):
    for kind in ('gif', 'webp', 'png'):
        f = animation(tmp_path, kind)
        with Image.open(f) as im: im.seek(0); want = quick(im.convert('RGB'))
        with Image.open(f) as im: im.seek(2); other = quick(im.convert('RGB'))
        [row] = predict_files(quick, f)
        assert numbers(row['probabilities'], quick) == pytest.approx(numbers(want, quick), abs=1e-5) != numbers(other, quick)

def test_a_turned_photograph_is_taken_as_it_is(quick, tmp_path):
    saved(tmp_path, 'plain.jpg', scene()), turned(tmp_path)
    a,b = predict_files(quick, tmp_path)
    assert a['probabilities'] == b['probabilities']

@pytest.mark.filterwarnings('error')
def test_sixteen_bits_are_scaled(quick, tmp_path):
    for name in ('a.png', 'a.tif', 'a.pgm', 'big.tif'):
        grey = np.asarray(scene().convert('L'))
        wide = grey.astype(np.uint16)*257
        im = Image.frombytes('I;16B', wide.shape[::-1], wide.astype('>u2').tobytes()) if name == 'big.tif' else Image.fromarray(wide)
        im.save(tmp_path/name)
        with Image.open(tmp_path/name) as im: assert im.mode[0] == 'I' and np.array_equal(np.asarray(to_rgb(im)), np.stack([grey]*3, -1))
        [row] = predict_files(quick, tmp_path/name)
        assert numbers(row['probabilities'], quick) == pytest.approx(numbers(quick(Image.fromarray(grey)), quick), abs=1e-5)

@few
@given(st.lists(st.integers(0, 2**16-1), min_size=1, max_size=50))
def test_scaling_rounds_to_the_nearest(values):
    im = Image.fromarray(np.array([values], dtype=np.uint16))
    assert im.mode == 'I;16' and np.asarray(to_rgb(im))[0,:,0].tolist() == [round(v*255/65535) for v in values]

def test_an_unknown_range_is_refused(quick, tmp_path):
    for mode in 'IF':
        saved(tmp_path, 'a.tif', Image.new(mode, (5, 5)))
        assert '32 bits, whose range is not known' in predict_files(quick, tmp_path)[0]['fault']

# ---- what can't be read

def fifo(d): os.mkfifo(d/'pipe.jpg'); return d/'pipe.jpg'
def content(name, data, d): (d/name).write_bytes(data); return d/name
def half(d):
    f = saved(d, 'half.jpg', scene(300, 300))
    return content('half.jpg', f.read_bytes()[:len(f.read_bytes())//2], d)
def empty_folder(d): (d/'none/.hidden').mkdir(parents=True); (d/'none/notes.txt').touch(); (d/'none/.hidden/a.jpg').touch(); return d/'none'

BAD = dict(
    gone=(lambda d: d/'gone.jpg', 'there is no such file'), empty=(partial(content, 'e.jpg', b''), 'empty'), text=(partial(content, 't.jpg', b'milk, bread'), 'not an image'),
    half=(half, 'damaged (image file is truncated'), header=(partial(content, 'h.png', png(9, 9)[:20]), ''), no_pixels=(partial(content, 'z.png', png(0, 5)), 'not an image'),
    large=(partial(content, 'l.png', png(10_000, 9_000)), 'more than 89 million pixels'),
    bomb=(partial(content, 'b.png', png(60_000, 60_000)), 'more than 89 million pixels'), pipe=(fifo, 'a pipe or a device'), device=(lambda d: Path('/dev/zero'), 'a pipe or a device'),
    folder=(empty_folder, 'a folder without images'), long=(lambda d: d/('x'*300), 'there is no such file'), broken_link=(lambda d: [(d/'l.jpg').symlink_to(d/'no'), d/'l.jpg'][1], 'no such file'))

@pytest.mark.filterwarnings('error')
def test_what_cannot_be_read_gets_a_row_with_the_reason(quick, tmp_path):
    good = saved(tmp_path, 'good.png', scene())
    for kind,(make,words) in BAD.items():
        f = make(tmp_path)
        rows = predict_files(quick, [good, f, good], tta=1)
        assert [o['fault'] is None for o in rows] == [True, False, True] and rows[0] == rows[2], kind
        assert words in rows[1]['fault'] and len(rows[1]['fault'].splitlines()) == 1 and rows[1]['probabilities'] is None and rows[1]['file'] == str(f), kind

def test_a_file_that_may_not_be_read(quick, tmp_path, monkeypatch):
    f = saved(tmp_path, 'a.png', scene())
    def refuse(*args, **kwargs): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(Image, 'open', refuse) # to the superuser nothing is forbidden
    assert predict_files(quick, f)[0]['fault'] == 'you may not read it'

def test_a_folder_that_may_not_be_read(quick, tmp_path, monkeypatch):
    def refuse(path): raise PermissionError(13, 'Permission denied', path)
    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match=f"{tmp_path} can't be read .Permission denied."): predict_files(quick, tmp_path)

def test_the_limit_of_pixels_is_pillows(quick, tmp_path, monkeypatch):
    f = saved(tmp_path, 'a.png', scene(20, 20))
    for limit,fault in ((400, None), (399, 'more than 0 million pixels'), (None, None)):
        monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', limit)
        assert predict_files(quick, f)[0]['fault'] == fault

@cache
def encoded(kind):
    buf = io.BytesIO()
    scene(24, 24).save(buf, kind)
    return buf.getvalue()

@pytest.mark.smoke
@settings(deadline=None, max_examples=60)
@given(st.sampled_from(['JPEG', 'PNG', 'GIF', 'WEBP', 'TIFF', 'BMP', 'ICO', 'TGA', 'PPM', 'JPEG2000', 'PCX', 'SGI', 'DDS']), st.data())
def test_damage_never_stops_it(quick, tmp_path_factory, kind, data):
    "Bytes overwritten, and the end cut off."
    b = bytearray(encoded(kind))
    for i,v in data.draw(st.lists(st.tuples(st.integers(0, len(b)-1), st.integers(0, 255)), max_size=8)): b[i] = v
    f = tmp_path_factory.getbasetemp()/f'damaged.{kind.lower()}'
    f.write_bytes(b[:data.draw(st.integers(0, len(b)))])
    try: [row] = predict_files(quick, f)
    finally: f.unlink()
    assert (row['fault'] is None) == (row['probabilities'] is not None)
    if row['probabilities']: assert sum(row['probabilities'].values()) == pytest.approx(1, abs=1e-4)

# ---- which files

def test_folders_stand_for_the_images_below_them(tmp_path):
    for o in ('b.jpg', 'a/z.PNG', 'a/b/c.gif', '.hidden.jpg', '.git/d.jpg', 'notes.txt', 'a/b.txt'):
        (tmp_path/o).parent.mkdir(parents=True, exist_ok=True); (tmp_path/o).touch()
    (tmp_path/'none').mkdir()
    assert find_images([tmp_path]) == [str(tmp_path/o) for o in ('a/b/c.gif', 'a/z.PNG', 'b.jpg')]
    assert find_images(tmp_path) == find_images(str(tmp_path)) == find_images([tmp_path])
    assert find_images(['./x', tmp_path/'notes.txt', 'x', './x', str(tmp_path/'none'), '', '-']) == ['./x', str(tmp_path/'notes.txt'), 'x', './x', str(tmp_path/'none'), '', '-']

NAMES = ['line\nbreak.png', 'ünïcødé 日本.png', '-dash.png', '--json', '-', ' ', '\x1b[2Jwipe.png', '\u202ereversed.png', b'bytes\xff.png'.decode(errors='surrogateescape'), 'a\\b.png', "quote'\".png"]

@pytest.fixture
def odd_names(tmp_path):
    for o in NAMES: scene().save(tmp_path/o, format='PNG')
    return tmp_path

def test_names_twice(quick, tmp_path):
    for o in ('a', 'b'): (tmp_path/o).mkdir(); scene(seed=ord(o)).save(tmp_path/o/'same.png')
    rows = predict_files(quick, [tmp_path/'a', tmp_path/'b', tmp_path/'a'])
    assert [Path(o['file']).parent.name for o in rows] == ['a', 'b', 'a'] and rows[0] == rows[2] and rows[0]['probabilities'] != rows[1]['probabilities']

# ---- views

@pytest.mark.smoke
@few
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 20), st.sampled_from([torch.uint8, torch.float32, torch.bfloat16]))
def test_views_are_squares_of_the_image(h, w, n, dtype):
    x = torch.arange(h*w).reshape(1, h, w)
    views = list(tta_views(x, n))
    assert len(views) == n
    for i,v in enumerate(views):
        v = v[0] if i%2 else v[0].flip(-1) # every other one is mirrored, the first of them
        top,left,side = v[0,0].item()//w, v[0,0].item()%w, len(v)
        assert torch.equal(v, x[0, top:top+side, left:left+side]) and v.shape == (side, side)
        assert .75**.5*min(h, w) - .5 <= side <= min(h, w)
    for a,b in zip(views, tta_views(x, n+3)): assert torch.equal(a, b)
    for v in tta_views(torch.zeros(3, h, w, dtype=dtype), n): assert v.dtype == dtype and v.shape[0] == 3

def test_views_are_spread_evenly():
    "Over the room that there is, and over the sizes; a mean of chance would be off by a tenth."
    x = torch.arange(400)
    wide,high = list(tta_views(x.expand(1, 200, 400), 63)), list(tta_views(x[:,None].expand(1, 400, 200), 63))
    places = [np.array([o.min().item()/(400-o.shape[-1]) for o in views]) for views in (wide, high)]
    for u in (*places, np.array([(o.shape[-1]**2/200**2 - .75)/.25 for o in wide])):
        assert abs(u.mean()-.5) < .03 and (np.histogram(u, 4, (0, 1))[0] > 12).all()

def test_views_are_combined_as_by_hand(quick, tmp_path):
    for n in (1, 4, 100):
        f = saved(tmp_path, 'a.png', scene(40, 70))
        x = TF.pil_to_tensor(scene(40, 70))
        one = lambda o: torch.tensor(numbers(quick(o), quick))
        want = .25*one(x) + .75*torch.stack([one(o) for o in tta_views(x, n)]).mean(0)
        assert numbers(predict_files(quick, f, tta=n)[0]['probabilities'], quick) == pytest.approx(want.tolist(), abs=1e-5)

def test_views_do_not_depend_on_the_company(quick, tmp_path):
    for i in range(5): scene(30+i, 50, seed=i).save(tmp_path/f'{i}.png')
    together, alone = predict_files(quick, tmp_path, tta=3), [predict_files(quick, tmp_path/f'{i}.png', tta=3)[0] for i in range(5)]
    for a,b in zip(together, alone): assert numbers(a['probabilities'], quick) == pytest.approx(numbers(b['probabilities'], quick), abs=1e-5)
    assert predict_files(quick, tmp_path, tta=3) == together

def test_bad_numbers_of_views(quick):
    for tta in (-1, 101, 2.5, True):
        with pytest.raises(BadInput, match='tta='): predict_files(quick, [], tta)

def test_bad_models():
    with pytest.raises(BadInput, match='must be one of load_model'): predict_files('m.safetensors', [])

# ---- batches

def test_the_network_is_given_batches(quick, tmp_path):
    for tta,sizes in ((0, [64, 6]), (3, [64, 64, 64, 64, 24]), (100, [64, 37]*2)):
        f, seen = saved(tmp_path, 'a.png', scene(8, 8)), []
        hook = quick.model.register_forward_pre_hook(lambda m, x: seen.append(len(x[0])))
        try: rows = predict_files(quick, [f]*(70 if tta < 100 else 2), tta)
        finally: hook.remove()
        assert seen == sizes and len(rows) == (70 if tta < 100 else 2)

def test_the_order_is_kept(quick, tmp_path):
    "Among good and bad files, over several batches."
    for i in range(70): (tmp_path/f'{i:02}.png').write_bytes(b'no' if i%7 == 3 else png(2, 1, data=bytes([0, 3*i, 250-3*i])))
    rows = predict_files(quick, tmp_path)
    assert [Path(o['file']).stem for o in rows] == [f'{i:02}' for i in range(70)]
    assert [i for i,o in enumerate(rows) if o['fault']] == list(range(3, 70, 7))
    for i in (0, 1, 36, 63, 64, 69): assert numbers(rows[i]['probabilities'], quick) == pytest.approx(numbers(quick(rows[i]['file']), quick), abs=1e-5)

def test_decoding_is_one_batch_ahead_and_no_further(quick, tmp_path, monkeypatch):
    f, old, decoded, at = saved(tmp_path, 'a.png', scene(8, 8)), predict_module._inputs, [], []
    def count(*args, **kwargs): decoded.append(threading.current_thread()); return old(*args, **kwargs)
    monkeypatch.setattr(predict_module, '_inputs', count)
    hook = quick.model.register_forward_pre_hook(lambda m, x: at.append(len(decoded)))
    try: predict_files(quick, [f]*300)
    finally: hook.remove()
    assert len(at) == 5 and all(min(300, 64*(i+1)) <= n <= 64*(i+2) for i,n in enumerate(at)) and len(decoded) == 300
    assert threading.main_thread() not in decoded

def test_filters_of_warnings_are_left_alone(quick, tmp_path):
    before = list(warnings.filters)
    predict_files(quick, saved(tmp_path, 'a.png', scene(8, 8)))
    assert warnings.filters == before

# ---- the learner that the file came from

@pytest.mark.parametrize('make', [get_dls, cached_dls])
def test_answers_as_the_learner_does(make, tiny, tmp_path):
    learn = get_learner(make(tiny, 8, 32), xresnet18)
    fit(learn, 1, 1e-3, show=False)
    save_model(learn, tmp_path/'m.safetensors', .5)
    files = learn.dls.valid_ds.items[:6]
    with learn.no_bar(), learn.no_logging(): want = [learn.predict(f)[2] for f in files]
    rows = predict_files(load_model(tmp_path/'m.safetensors'), files)
    for row,p in zip(rows, want): assert [row['probabilities'][o] for o in learn.dls.vocab] == pytest.approx(p.tolist(), abs=.05)

# ---- table and JSON

@few
@given(st.lists(st.lists(st.floats(0, 1), min_size=4, max_size=4), max_size=5), st.integers(1, 4))
def test_the_table(probs, n):
    rows = [dict(file=f'{i}', probabilities=dict(zip('abcd'[:n], p)), fault=None) for i,p in enumerate(probs)] + [dict(file='x', probabilities=None, fault='y')]
    df = as_table(rows)
    assert df['file'].tolist() == [str(i) for i in range(len(probs))]
    if probs:
        assert list(df) == ['file', 'best', 'best %', 'second', 'second %', 'third', 'third %'][:1+2*min(n, 3)]
        assert df['best'].tolist() == ['a']*len(probs) and df['best %'].tolist() == [100*p[0] for p in probs]

# ---- the command

@pytest.fixture
def run(in_process): return partial(in_process, 'imagenette_predict', predict_module.main)

@pytest.fixture
def pictures(tmp_path):
    (tmp_path/'in').mkdir()
    for i in range(3): scene(seed=i).save(tmp_path/f'in/{i}.png')
    return tmp_path/'in'

def process(*args, **env):
    "The command in a process of its own, as a user has it; bytes."
    return subprocess.run([sys.executable, '-m', 'imagenette_course.predict', *map(os.fsencode, args)], capture_output=True, timeout=300, env={**os.environ, **env})

def test_a_process_of_its_own(model_file, odd_names, pictures):
    "Names of all kinds on a terminal that knows ASCII alone; one file can't be read."
    (odd_names/'text.jpg').write_text('no')
    proc = process(model_file, odd_names, pictures, '--tta', '2', PYTHONIOENCODING='ascii')
    lines = proc.stdout.decode('ascii').splitlines()
    assert proc.returncode == 1 and proc.stderr.decode() == f'imagenette_predict: {odd_names}/text.jpg: not an image of a kind that Pillow reads\n'
    n = sum(o.endswith('.png') for o in NAMES)
    assert lines[0].split() == ['file', 'best', 'best', '%', 'second', 'second', '%', 'third', 'third', '%'] and len(lines) == 1+n+3+3 and b'\x1b' not in proc.stdout
    assert any('line\\nbreak.png' in o for o in lines) and any('bytes\\udcff.png' in o for o in lines)
    at = lines[0].index('best')
    assert all(o[at-1] == ' ' != o[at] for o in lines) # one column below the other

def test_the_table_holds_what_load_model_says(run, model_file, pictures, clf):
    status,out,err = run(model_file, pictures)
    assert (status, err) == (0, [])
    for line,f in zip(out.splitlines()[1:], sorted(pictures.iterdir()), strict=True):
        want = ' '.join([str(f)] + [f'{name} {100*p:.1f}' for name,p in list(clf(f).items())[:3]])
        assert ' '.join(line.split()) == want

def test_json(run, model_file, pictures, clf):
    (pictures/'1.png').write_bytes(b'no')
    status,out,err = run(pictures, '--json')[0], *run(model_file, '--json', pictures)[1:]
    assert status == 2 and err == [f'imagenette_predict: {pictures}/1.png: not an image of a kind that Pillow reads']
    got = json.loads(out)
    assert [o['file'] for o in got] == [f'{pictures}/0.png', f'{pictures}/2.png'] and all(set(o) == {'file', 'probabilities'} for o in got)
    for o in got: assert set(o['probabilities']) == set(clf.classes) and sum(o['probabilities'].values()) == pytest.approx(1, abs=1e-5)

def test_json_gives_names_back_as_they_are(run, model_file, odd_names, monkeypatch):
    monkeypatch.chdir(odd_names)
    status,out,err = run(model_file, '--json', '--', *NAMES)
    assert (status, err) == (0, []) and [o['file'] for o in json.loads(out)] == NAMES and out.isascii()

def test_options_may_stand_anywhere(run, model_file, pictures):
    a,b = pictures/'0.png', pictures/'1.png'
    want = run(model_file, a, b, '--tta', 2)
    assert want[0] == 0 and run('--tta=2', model_file, a, b) == run(model_file, a, '--tta', 2, b) == want

def test_what_you_can_mend(run, model_file, pictures, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    Path('none').mkdir()
    for args,words in (((), 'no images: name some files'), (('gone.jpg', 'none'), 'nothing to predict: 2 of 2 could not be read'),
                       (('in', '--tta', 101), '--tta=101: it must be a whole number between 0 and 100'), (('--tta', 'x', 'a.jpg'), 'invalid int value')):
        status,out,err = run(model_file, *args)
        assert status == 2 and out == '' and words in err[-1]

def test_json_is_json_also_when_nothing_could_be_read(run, model_file):
    status,out,err = run(model_file, 'gone.jpg', '--json')
    assert status == 2 and json.loads(out) == [] and len(err) == 2

def test_a_model_that_is_not_there(run, pictures):
    for o in (pictures.parent/'no.safetensors', pictures):
        status,out,err = run(o, pictures)
        assert status == 2 and out == '' and len(err) == 1 and 'is not a file' in err[0]

def test_a_model_that_may_not_be_read(run, model_file, pictures, monkeypatch):
    def refuse(*args, **kwargs): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(models, 'open', refuse, raising=False)
    assert run(model_file, pictures) == (2, '', [f"imagenette_predict: {model_file} can't be read (Permission denied): change its permissions"])

def test_a_damaged_file_among_many_is_named(run, model_file, pictures):
    half(pictures)
    status,out,err = run(model_file, pictures)
    assert status == 1 and len(out.splitlines()) == 4 and len(err) == 1 and 'half.jpg: damaged (' in err[0]

def test_ctrl_c(run, model_file, pictures, monkeypatch):
    def press(*args, **kwargs): raise KeyboardInterrupt # a process in the background ignores the signal itself
    monkeypatch.setattr(predict_module, '_probs', press)
    assert run(model_file, pictures) == (130, '', ['imagenette_predict: stopped'])

def test_a_reader_that_has_gone(model_file, pictures, monkeypatch, capsys):
    "As in `imagenette_predict ... | head -1`; and a full disk, which is an error."
    for gone in (True, False):
        if gone: r,w = os.pipe(); os.close(r)
        else: w = os.open('/dev/full', os.O_WRONLY)
        with open(w, 'w') as out, monkeypatch.context() as m:
            m.setattr(sys, 'stdout', out)
            if gone: imagenette_predict(str(model_file), [str(pictures)])
            else:
                with pytest.raises(SystemExit) as e: imagenette_predict(str(model_file), [str(pictures)])
                assert e.value.code == 2
    assert 'No space left' in capsys.readouterr().err

def test_few_classes(run, tmp_path, pictures):
    for n in (1, 2):
        f = write_model(tmp_path/f'{n}.safetensors', weights(n), classes=['cat', 'dog'][:n])
        status,out,err = run(f, pictures)
        assert (status, err) == (0, []) and len(out.splitlines()[0].split('%'))-1 == n

def test_names_of_classes_are_shown_on_one_line(run, tmp_path, pictures):
    f = write_model(tmp_path/'m.safetensors', weights(3), classes=['a\nb', '\x1b[2J', '\ud800'])
    status,out,err = run(f, pictures)
    assert (status, err) == (0, []) and len(out.splitlines()) == 4 and '\x1b' not in out and '\\ud800' in out and 'a\\nb' in out

# ---- files that mean harm

class Bomb:
    def __init__(self, mark): self.mark = mark
    def __reduce__(self): return os.mkdir, (self.mark,)

def write(path, data): path.write_bytes(data); return path
def changed(f): return {k: f(v) if v.is_floating_point() else v for k,v in weights().items()}

HARM = dict( # what else may be wrong with a file is in test_normalize.py
    pickle=(lambda f: write(f, pickle.dumps(Bomb(str(f)+'.ran'))), 'damaged or no .safetensors file'), torch_save=(lambda f: [torch.save(Bomb(str(f)+'.ran'), f), f][1], 'damaged or no .safetensors'),
    header=(lambda f: write(f, (2**63).to_bytes(8, 'little') + b'{}'), 'damaged or no .safetensors'), arch=(lambda f: write_model(f, arch='__import__'), 'is not known here'),
    long_name=(lambda f: write_model(f, arch='x'*100_000), 'its network'), escape=(lambda f: write_model(f, {**weights(), '\x1b[2J\n': torch.zeros(1)}), '\\x1b[2J'),
    whole_numbers=(lambda f: write_model(f, changed(lambda v: v.long())), 'does not fit'), size=(lambda f: write_model(f, size=10**300, presize=10**301), 'size='))

def test_files_that_mean_harm(run, tmp_path, pictures):
    for kind,(make,words) in HARM.items():
        f = make(tmp_path/'m.safetensors')
        before = sorted(tmp_path.rglob('*'))
        status,out,err = run(f, pictures)
        assert status == 2 and out == '' and len(err) == 1 and err[0].startswith('imagenette_predict: ') and words in err[0], (kind, err)
        assert len(err[0]) < 400 and err[0].isprintable()
        assert sorted(tmp_path.rglob('*')) == before, kind # nothing ran, nothing was written

# ---- CUDA

@pytest.mark.gpu
def test_on_the_gpu_as_on_the_cpu(model_file, clf, tmp_path):
    for i in range(70): scene(30+i, 50, seed=i).save(tmp_path/f'{i:02}.png')
    (tmp_path/'70.png').write_bytes(b'no')
    on_gpu = load_model(model_file).cuda()
    seen = []
    hook = on_gpu.model.register_forward_pre_hook(lambda m, x: seen.append((len(x[0]), x[0].is_cuda)))
    for tta in (0, 3):
        a,b = predict_files(clf, tmp_path, tta), predict_files(on_gpu, tmp_path, tta)
        for o,p in zip(a[:70], b[:70], strict=True): assert numbers(o['probabilities'], clf) == pytest.approx(numbers(p['probabilities'], clf), abs=2e-3)
        assert a[70] == b[70] and a[70]['fault']
    hook.remove()
    assert all(on for _,on in seen) and seen[0][0] == 64

@pytest.mark.gpu
def test_the_command_uses_the_gpu(model_file): assert next(predict_module._load(str(model_file)).parameters()).is_cuda
