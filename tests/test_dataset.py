"The sample, the loader, and every way in which a dataset can be bad."
import errno, io, math, os, random, re, shutil, subprocess, sys, tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from fastcore.all import Config  # its home differs between the two fastcores
from fastai.vision.all import CrossEntropyLossFlat, Learner, PILImage, URLs, imagenet_stats, nn, set_seed
from hypothesis import given, settings, strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as TF

from imagenette_course import data, dataset, files
from imagenette_course.core import *
from imagenette_course.files import *
from imagenette_course.data import *
from imagenette_course.dataset import *
from imagenette_course.scenes import SCENES, draw_scene
from imagenette_course.speed import cached_dls

# ---- the drawings and the sample

def test_classes_are_sorted_and_match_the_drawings():
    assert list(CLASSES) == sorted(CLASSES)
    assert list(CLASSES.values()) == list(SCENES)

@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(list(SCENES)), seed=st.integers(0, 2**32-1))
def test_every_drawing_is_a_picture(kind, seed):
    im = draw_scene(kind, random.Random(seed))
    assert im.mode in ('RGB', 'L') and min(im.size) >= 100 and max(im.size) <= 800
    assert np.asarray(im.convert('L')).std() > 3 # something is on it
    assert draw_scene(kind, random.Random(seed)).tobytes() == im.tobytes()

def test_drawing_uses_no_other_randomness():
    pics = []
    for s in (1, 2):
        random.seed(s); np.random.seed(s); torch.manual_seed(s)
        pics.append(draw_scene('church', random.Random(7)).tobytes())
    assert pics[0] == pics[1]

def test_unknown_kind(): 
    with pytest.raises(ValueError, match='zebra.*church'): draw_scene('zebra', random.Random(0))

def test_sample_has_the_published_layout(sample):
    n = Counter(o.relative_to(sample).parts[:2] for o in image_files(sample))
    assert n == {(part,c): k for part,k in (('train', data.N_TRAIN), ('val', data.N_VAL)) for c in CLASSES}
    assert check_images(sample) == {}

def test_sample_varies(sample):
    ims = [Image.open(o) for o in image_files(sample)]
    ratios = {round(im.width/im.height, 1) for im in ims}
    assert len(ratios) >= 4 and len({im.size for im in ims}) > 50
    assert .02 < np.mean([im.mode == 'L' for im in ims]) < .12
    assert {im.format for im in ims} == {'JPEG'}

def test_sample_is_the_same_for_a_seed(tmp_path):
    a,b,c = (make_sample(tmp_path/n, 2, 1, seed=s) for n,s in (('a',5), ('b',5), ('c',6)))
    content = lambda p: {o.relative_to(p).as_posix(): o.read_bytes() for o in p.rglob('*') if o.is_file() and o.name != 'sample.json'}
    assert content(a) == content(b)
    assert content(a).keys() == content(c).keys() and not any(content(a)[k] == content(c)[k] for k in content(a) if k.endswith('JPEG'))

def test_a_larger_sample_contains_the_smaller(tmp_path):
    a,b = make_sample(tmp_path/'a', 1, 1), make_sample(tmp_path/'b', 2, 1)
    for o in image_files(a): assert o.read_bytes() == (b/o.relative_to(a)).read_bytes()

def test_no_picture_is_in_both_parts(sample):
    hashes = {part: {o.read_bytes() for o in image_files(sample) if o.parts[-3] == part} for part in ('train', 'val')}
    assert not hashes['train'] & hashes['val']

def test_two_processes_at_once(tmp_path):
    code = f"from imagenette_course.dataset import make_sample; print(make_sample({str(tmp_path/'both')!r}, 3, 1))"
    procs = [subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    outs = [p.communicate(timeout=300) for p in procs]
    assert [p.returncode for p in procs] == [0, 0], outs
    assert len(image_files(tmp_path/'both')) == 40 and check_images(tmp_path/'both') == {}
    assert [o.name for o in tmp_path.iterdir()] == ['both']

def test_the_loser_of_a_race_uses_the_winners_folder(tmp_path, monkeypatch):
    def draw_and_lose(*args):
        monkeypatch.setattr(data, 'draw_scene', draw_scene)
        make_sample(tmp_path/'a', 1, 1)
        return draw_scene(*args)
    monkeypatch.setattr(data, 'draw_scene', draw_and_lose)
    assert make_sample(tmp_path/'a', 1, 1) == tmp_path/'a'
    assert [o.name for o in tmp_path.iterdir()] == ['a']

def test_an_interrupted_sample_leaves_nothing(tmp_path, monkeypatch):
    calls = iter(range(100))
    def stop(*args):
        if next(calls) == 5: raise KeyboardInterrupt
        return Image.new('RGB', (128, 128))
    monkeypatch.setattr(data, 'draw_scene', stop)
    with pytest.raises(KeyboardInterrupt): make_sample(tmp_path/'a', 2, 1)
    assert list(tmp_path.iterdir()) == []

def test_no_room_for_the_sample(tmp_path, monkeypatch):
    def full(*args, **kwargs): raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(Image.Image, 'save', full)
    with pytest.raises(OSError, match='No space left on device.*free some space'): make_sample(tmp_path/'a', 1, 1)
    assert list(tmp_path.iterdir()) == []

def test_sample_arguments(tmp_path):
    for args in (dict(n_train=0), dict(n_val=1.5), dict(seed=2**32)):
        with pytest.raises(BadInput, match=next(iter(args))): make_sample(tmp_path/'a', **args)

def test_another_folder_is_left_alone(tmp_path):
    "Someone else's, and another sample."
    (tmp_path/'b').mkdir(); (tmp_path/'b/note.txt').write_text('mine')
    make_sample(tmp_path/'a', 1, 1)
    for name in 'ab':
        with pytest.raises(BadInput, match='is not this sample'): make_sample(tmp_path/name, 2, 1)
    assert [o.name for o in (tmp_path/'b').iterdir()] == ['note.txt']

# ---- wrong labels

@pytest.mark.smoke
@settings(max_examples=50, deadline=None)
@given(labels=st.lists(st.sampled_from(list(CLASSES)), max_size=200), pct=st.sampled_from(dataset.NOISE), seed=st.integers(0, 10**6))
def test_wrong_labels(labels, pct, seed):
    wrong = wrong_labels(labels, pct, random.Random(seed))
    assert len(wrong) == len(labels) and set(wrong) <= set(CLASSES)
    assert sum(a != b for a,b in zip(labels, wrong)) == round(len(labels)*pct/100)

def test_wrong_labels_reach_every_other_class():
    wrong = wrong_labels(['n03028079']*1000, 50, random.Random(0))
    assert set(wrong) == set(CLASSES)

def test_noise_in_the_datasets(sample):
    for pct in dataset.NOISE:
        both = datasets(sample, noise=pct)
        share = lambda ds: np.mean([ds.vocab[y] != CLASSES[o.parent.name] for o,y in zip(ds.items, ds.tls[1])])
        assert share(both.train) == pct/100 and share(both.valid) == 0

def test_noise_without_a_table_that_fits(own):
    with pytest.raises(BadInput, match='noise=2: .*0, 1, 5, 25, 50'): get_dls(own, 8, 64, noise=2)
    df = pd.read_csv(own/'noisy_imagenette.csv')
    df[1:].to_csv(own/'noisy_imagenette.csv', index=False)
    with pytest.raises(BadInput, match=f'no row for {df.path[0]}'): get_dls(own, 8, 64, noise=5)
    (own/'noisy_imagenette.csv').unlink()
    with pytest.raises(FileNotFoundError, match='noisy_imagenette.csv'): get_dls(own, 8, 64, noise=5)

# ---- finding the data

def test_the_sample_is_the_default_under_test(sample, capsys):
    assert imagenette() == sample
    assert capsys.readouterr().out.startswith('Drawn sample: 800 training and 300 validation images in 10 classes')

def test_environment_variable(tiny, monkeypatch, capsys):
    monkeypatch.setenv('IMAGENETTE', str(tiny))
    assert imagenette() == tiny
    assert imagenette('sample') != tiny
    assert '40 training and 20 validation' in capsys.readouterr().out

def test_unknown_data():
    with pytest.raises(FileNotFoundError, match="data='imagenete'.*'sample', '160', '320', 'full'"): imagenette('imagenete')

def test_not_a_dataset(own, tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a folder'): check_folder(tmp_path/'nowhere')
    with pytest.raises(FileNotFoundError, match='is not a folder'): check_folder(own/'noisy_imagenette.csv')
    with pytest.raises(FileNotFoundError, match='train/train is not a folder: name one that holds train/ and val/'): check_folder(own/'train')
    (own/'val').rename(own/'test')
    with pytest.raises(FileNotFoundError, match='own/val is not a folder'): get_dls(own, 8, 64)
    for part in ('train', 'val'): (tmp_path/part/'n03028079').mkdir(parents=True)
    with pytest.raises(ValueError, match='holds no images'): check_folder(tmp_path)

def test_missing_class(own):
    (own/'val/n03028079').rename(own/'val/barn')
    with pytest.raises(BadInput, match='val has no images of n03028079, which train/ has'): imagenette(own)
    (own/'train/n03028079').rename(own/'elsewhere')
    with pytest.raises(BadInput, match='train has no images of barn, which val/ has'): imagenette(own)

def test_the_files_are_listed_once(own, monkeypatch):
    count = []
    def listed(path): count.append(path); return image_files(path)
    for o in (dataset, data, files): monkeypatch.setattr(o, 'image_files', listed)
    for f in (imagenette, check_folder, check_images, datasets):
        count.clear(); f(own)
        assert count == [own]

# ---- downloads, from an archive on this disk

@pytest.fixture
def archive(tmp_path, tiny, monkeypatch):
    "Makes '160' mean a small archive on this disk, downloaded into folders of this test."
    with tarfile.open(tmp_path/'imagenette2-160.tgz', 'w:gz') as t:
        t.add(tiny, 'imagenette2-160', filter=lambda o: None if o.name.endswith('sample.json') else o)
    monkeypatch.setattr(URLs, 'IMAGENETTE_160', (tmp_path/'imagenette2-160.tgz').as_uri())
    for part,n in (('train', 40), ('val', 20)): monkeypatch.setitem(N_IMAGES, part, n)
    monkeypatch.setattr(files, 'fastai_cfg', lambda: Config(tmp_path, 'config.ini', create=dict(archive='archive', data='data')))
    return tmp_path/'data'/'imagenette2-160'

def test_download(archive, capsys):
    assert imagenette('160') == archive
    assert capsys.readouterr().out.startswith('Imagenette: 40 training and 20 validation')
    assert check_folder(archive) == dict(train=40, val=20)

def test_a_partial_folder_is_not_taken_for_a_whole_one(archive):
    imagenette('160')
    for o in image_files(archive)[:42:6]: o.unlink()
    with pytest.raises(OSError, match='lacks 7 of 60 images.*remove it to fetch it again.*give its path'): imagenette('160')
    assert len(image_files(archive)) == 53 # nothing was touched
    assert imagenette(archive) == archive # as it is, when asked for by its path

def test_an_interrupted_extraction(archive, monkeypatch):
    with monkeypatch.context() as m:
        def half(self, path, **kwargs):
            self.extract(self.getmembers()[0], path, filter='data')
            raise KeyboardInterrupt
        m.setattr(tarfile.TarFile, 'extractall', half)
        with pytest.raises(KeyboardInterrupt): imagenette('160')
    assert not list(archive.parent.iterdir())
    assert imagenette('160') == archive

def test_a_damaged_archive(archive, tmp_path):
    whole = (tmp_path/'imagenette2-160.tgz').read_bytes()
    (tmp_path/'imagenette2-160.tgz').write_bytes(whole[:len(whole)//2])
    with pytest.raises(OSError, match='could not be downloaded and unpacked'): imagenette('160')
    assert not archive.exists()

@pytest.mark.parametrize('kind', ['parent', 'link', 'link to a folder'])
def test_an_archive_that_reaches_outside(archive, tmp_path, kind):
    victim = tmp_path/'victim'
    victim.mkdir()
    name = '../'*20 + str(victim/'bitten')[1:] if kind == 'parent' else 'imagenette2-160/in/bitten'
    with tarfile.open(tmp_path/'imagenette2-160.tgz', 'w:gz') as t:
        if kind.startswith('link'):
            link = tarfile.TarInfo('imagenette2-160/in' if kind == 'link to a folder' else name)
            link.type, link.linkname = tarfile.SYMTYPE, str(victim if kind == 'link to a folder' else victim/'bitten')
            t.addfile(link)
        member = tarfile.TarInfo(name); member.size = 4
        t.addfile(member, io.BytesIO(b'bite'))
    with pytest.raises(OSError, match='could not be downloaded and unpacked|lacks 60 of 60'): imagenette('160')
    assert not list(victim.iterdir())

def test_no_network(tmp_path, monkeypatch):
    monkeypatch.setattr(files, 'fastai_cfg', lambda: Config(tmp_path, 'config.ini', create=dict(archive='archive', data='data')))
    monkeypatch.setattr(URLs, 'IMAGENETTE_160', 'http://127.0.0.1:9/imagenette2-160.tgz') # nothing listens there
    with pytest.raises(OSError, match="refused.*Three ways out: data='sample'.*IMAGENETTE.*by hand") as e: imagenette('160')
    assert '\n' not in str(e.value)

# ---- bad files

def test_check_images_names_every_fault(own):
    church = own/'train/n03028079'
    files = sorted(church.iterdir())
    whole = files[0].read_bytes()
    files[0].write_bytes(whole[:len(whole)//2]); files[1].write_bytes(b''); files[2].write_text('<html>')
    (own/'val/stray.JPEG').write_bytes(whole); (own/'val/n03028079/deep').mkdir(); (own/'val/n03028079/deep/a.JPEG').write_bytes(whole)
    (church/'.DS_Store').write_text('x'); (church/'notes.txt').write_text('x')
    bad = {o.relative_to(own).as_posix(): why for o,why in check_images(own).items()}
    f = [o.relative_to(own).as_posix() for o in files]
    assert bad.pop(f[0]).startswith('damaged (')
    assert bad == {f[1]: 'empty', f[2]: 'not an image', 'val/stray.JPEG': 'in no class folder', 'val/n03028079/deep/a.JPEG': 'in no class folder',
                   'train/n03028079/notes.txt': 'not an image'}

def test_the_loader_names_an_unreadable_image(own):
    with pytest.raises(FileNotFoundError, match='gone.JPEG'): NamedImage.create(own/'gone.JPEG')
    bad = image_files(own)[4]
    bad.write_bytes(bad.read_bytes()[:300])
    for workers in (0, 1):
        with pytest.raises(ValueError, match=f'{bad.name} is not a readable image'):
            for _ in get_dls(own, 30, 32, workers=workers).train: pass

# ---- subset

@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 4), seed=st.integers(0, 2**32-1))
def test_subset_is_balanced_and_repeats(tiny, n, seed):
    files = subset(tiny, n, seed)
    assert Counter(o.parts[-2] for o in files if o.parts[-3] == 'train') == {c: n for c in CLASSES}
    assert {o for o in files if o.parts[-3] == 'val'} == {o for o in image_files(tiny) if o.parts[-3] == 'val'}
    assert len(set(files)) == len(files) and files == subset(tiny, n, seed)

def test_subset_of_some_files(tiny):
    assert set(subset(tiny, 2, 1)) != set(subset(tiny, 2, 2))
    some = image_files(tiny).filter(lambda o: not o.stem.endswith('_0'))
    assert not [o for o in subset(tiny, 3, files=some) if o.stem.endswith('_0')]
    with pytest.raises(BadInput, match='has only 3 images'): subset(tiny, 4, files=some)
    with pytest.raises(BadInput, match='n=0'): subset(tiny, 0)

@pytest.mark.parametrize('every', [1, 2, 3, 100])
def test_subset_of_the_validation_images(tiny, every):
    train,val = (image_files(tiny).filter(lambda o: o.parts[-3] == part) for part in ('train', 'val'))
    n = len(train)//len(CLASSES)
    assert set(subset(tiny, n, every=every)) == {*train, *val[::every]}
    with pytest.raises(BadInput, match='every=0'): subset(tiny, n, every=0)

# ---- the loader

@pytest.mark.smoke
def test_published_split(sample):
    dls = get_dls(sample, 16, 64)
    train,valid = set(dls.train_ds.items), set(dls.valid_ds.items)
    assert not train & valid and len(train) == 800 and len(valid) == 300
    assert {o.parts[-3] for o in train} == {'train'} and {o.parts[-3] for o in valid} == {'val'}

def test_labels_are_the_folders_in_synset_order(sample):
    dls = get_dls(sample, 16, 64, workers=0)
    assert list(dls.vocab) == list(CLASSES.values())
    y = torch.cat([y for _,y in dls.valid])
    assert [dls.vocab[i] for i in y] == [CLASSES[o.parent.name] for o in dls.valid_ds.items]

def test_a_subset_keeps_the_class_numbers(sample):
    files = [o for o in image_files(sample) if o.parent.name in ('n03888257', 'n03028079')]
    dls = get_dls(sample, 4, 64, files=files, workers=0)
    assert dls.c == 10 and set(torch.cat([y for _,y in dls.valid]).tolist()) == {4, 9}

def test_other_classes_keep_their_folder_names(own):
    for part in ('train', 'val'): (own/part/'n03028079').rename(own/part/'barn')
    assert get_dls(own, 8, 32, workers=0).vocab[0] == 'barn'

@settings(max_examples=8, deadline=None)
@given(bs=st.integers(1, 9), size=st.integers(8, 80))
def test_batches(tiny, bs, size):
    dls = get_dls(tiny, bs, size, workers=0)
    x,y = dls.train.one_batch()
    assert x.shape == (bs, 3, size, size) and x.dtype == torch.float32 and y.shape == (bs,) and y.dtype == torch.int64
    assert sum(len(y) for _,y in dls.valid) == 20

def test_grey_becomes_rgb(own):
    for o in image_files(own): Image.open(o).convert('L').save(o)
    x,_ = get_dls(own, 8, 64, stats=None, workers=0).valid.one_batch()
    assert x.shape[1] == 3 and torch.equal(x[:,0], x[:,1]) and torch.equal(x[:,1], x[:,2])

@pytest.mark.smoke
def test_every_kind_of_file_becomes_rgb(own):
    for f,mode in zip(image_files(own), ['CMYK', 'RGBA', 'P', 'I;16']):
        im = Image.open(f).convert('L').convert('I;16') if mode == 'I;16' else Image.open(f).convert('RGB').convert(mode)
        im.save(f, format='TIFF' if mode in ('CMYK', 'I;16') else 'PNG')
        assert np.array(NamedImage.create(f)).shape == (im.height, im.width, 3)

def test_predict_takes_an_image_in_memory(tiny):
    "The same answer for a file, and for the `PILImage` that is in it."
    dls = get_dls(tiny, 8, 32, workers=0)
    learn = Learner(dls, nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(12, dls.c)), loss_func=CrossEntropyLossFlat())
    file = dls.valid_ds.items[0]
    with learn.no_bar(): a,b = learn.predict(file), learn.predict(PILImage.create(file))
    assert a[0] == b[0] and torch.equal(a[2], b[2])

@pytest.mark.smoke
def test_validation_is_the_centre_against_torchvision(tiny):
    "The middle square, scaled, as an independent library does it; both blurred, as they interpolate differently."
    dls = get_dls(tiny, 8, 64, stats=None, workers=0)
    x = torch.cat([x for x,_ in dls.valid])
    for o,f in zip(x, dls.valid_ds.items):
        im = Image.open(f).convert('RGB')
        ref = TF.pil_to_tensor(TF.resize(TF.center_crop(im, min(im.size)), 64, antialias=True)).float()/255
        assert (TF.gaussian_blur(o, 9, 3.) - TF.gaussian_blur(ref, 9, 3.)).abs().mean() < .03

def test_normalization(tiny):
    plain,norm = (torch.cat([x for x,_ in get_dls(tiny, 8, 64, stats=stats, workers=0).valid]) for stats in (None, imagenet_stats))
    mean,std = (torch.tensor(o)[:,None,None] for o in imagenet_stats)
    assert plain.min() >= 0 and plain.max() <= 1
    torch.testing.assert_close(torch.Tensor(norm), torch.Tensor((plain - mean)/std), atol=1e-5, rtol=1e-4)

def test_validation_has_no_chance_and_training_has(tiny):
    dls = get_dls(tiny, 8, 64, workers=0)
    a,b = (torch.cat([x for x,_ in dls.valid]) for _ in range(2))
    assert torch.equal(a, b)
    a,b = (dls.train.one_batch()[0] for _ in range(2))
    assert not torch.equal(a, b)

def test_the_same_seed_gives_the_same_batches(tiny):
    def batches(workers):
        dls = get_dls(tiny, 8, 32, workers=workers)
        set_seed(3); dls.train.rng.seed(3)
        return torch.cat([x for x,_ in dls.train])
    assert torch.equal(batches(0), batches(0)) and torch.equal(batches(2), batches(2))

def test_files_may_be_text_and_need_both_parts(tiny):
    assert len(get_dls(tiny, 8, 32, files=[str(o) for o in image_files(tiny)], workers=0).train_ds) == 40
    for part,other in (('train', 'val'), ('val', 'train')):
        with pytest.raises(BadInput, match=f'no image in {other}/'): get_dls(tiny, 8, 32, files=[o for o in image_files(tiny) if o.parts[-3] == part])
    with pytest.raises(BadInput, match='no image in train/'): get_dls(tiny, 8, 32, files=[])

def test_labels_can_be_sent_to_processes(sample):
    "As where worker processes are started, not forked."
    import pickle
    label = NoisyLabel(sample, 25)
    for f in image_files(sample)[:3]:
        assert pickle.loads(pickle.dumps(label))(f) == label(f)
        assert pickle.loads(pickle.dumps(folder_label))(f) == CLASSES[f.parent.name]

def test_the_loaders_know_their_settings(tiny):
    assert get_dls(tiny, 8, 32, workers=0).settings == dict(bs=8, size=32, stats=imagenet_stats, presize=64, noise=0, workers=0, holdout=False)

@pytest.mark.parametrize('kwargs,words', [
    (dict(bs=0), 'bs=0'), (dict(bs=41), 'bs=41: use the number of training images, 40'), (dict(size=7), 'size=7.*between 8 and 2048'),
    (dict(presize=32), 'presize=32.*64 or more'), (dict(workers=-1), 'workers=-1'), (dict(holdout=True, noise=5), 'holdout and noise=5'),
    (dict(holdout=True), 'no class has ten training images'), (dict(stats=([.5]*3, [0., .2, .2])), 'std')])
def test_loader_arguments(tiny, kwargs, words):
    with pytest.raises(BadInput, match=words): get_dls(tiny, **{**dict(bs=8, size=64), **kwargs})

@settings(max_examples=200, deadline=None)
@given(v=st.one_of(st.integers(), st.floats(), st.booleans(), st.text(max_size=3), st.none()))
def test_check_range(v):
    whole = isinstance(v, int) and not isinstance(v, bool)
    number = whole or isinstance(v, float)
    for kind,ok in ((int, whole and 1 <= v <= 9), (float, number and 1 <= v <= 9)):
        if ok: assert check_range('v', v, 1, 9, kind) == v
        else:
            with pytest.raises(ValueError, match='v=.*between 1 and 9'): check_range('v', v, 1, 9, kind)

# ---- photographs

@pytest.mark.real
def test_the_photographs(photos, capsys):
    assert imagenette(photos) == photos
    assert capsys.readouterr().out.startswith('Imagenette: 9,469 training and 3,925 validation images in 10 classes')

@pytest.mark.real
def test_every_photograph_can_be_read(photos): assert check_images(photos) == {}

@pytest.mark.real
def test_wrong_labels_of_the_photographs(photos):
    for pct in dataset.NOISE:
        train = datasets(photos, noise=pct).train
        wrong = np.mean([train.vocab[y] != CLASSES[o.parent.name] for o,y in zip(train.items, train.tls[1])])
        assert abs(wrong - pct/100) < 1e-3

@pytest.mark.gpu
def test_batches_on_the_gpu(tiny):
    dls = get_dls(tiny, 8, 64)
    x,y = dls.train.one_batch()
    assert x.device.type == y.device.type == 'cuda' and x.shape == (8, 3, 64, 64)
    cpu = get_dls(tiny, 20, 64, workers=0); cpu.to('cpu')
    gpu = get_dls(tiny, 20, 64, workers=0)
    torch.testing.assert_close(torch.Tensor(gpu.valid.one_batch()[0].cpu()), torch.Tensor(cpu.valid.one_batch()[0]), atol=2e-2, rtol=1e-2)

def test_only_float_tensors_and_labels():
    for x,words in ((torch.zeros(2, 3, 4, 4, dtype=torch.uint8), 'x is a torch.uint8 of shape'), (torch.zeros(3, 4), 'shape (3, 4)'), ([1.], 'x is a list')):
        with pytest.raises(BadInput, match=re.escape(words)): check_floats('x', x, 4)
    for y,words in ((torch.tensor([0, 10]), 'y holds 10'), (torch.zeros(2), 'torch.float32'), (torch.zeros(2, 1, dtype=torch.int64), 'shape (2, 1)')):
        with pytest.raises(BadInput, match=re.escape(words)): check_labels('y', y, 10)
    x,y = torch.zeros(2, 3, 4, 4, dtype=torch.bfloat16), torch.tensor([0, 9])
    assert check_floats('x', x, 4) is x and check_labels('y', y, 10) is y and len(check_labels('y', y[:0], 10)) == 0

def test_only_statistics_that_can_be():
    for stats,words in ((([.5]*3, [0., .2, .2]), 'std'), (([123., 116., 103.], [.2]*3), 'mean'), (([.5], [.2]), 'three numbers'), (([math.nan]*3, [.2]*3), 'mean')):
        with pytest.raises(BadInput, match=words): check_stats(stats)

# ---- what people met with their files

def test_folders_without_images_are_no_classes(own, capsys):
    (own/'train/__MACOSX').mkdir(); (own/'train/__MACOSX/notes.txt').write_text('x')
    assert get_dls(own, 4, 32, workers=0).c == 10
    imagenette(own)
    assert 'in 10 classes' in capsys.readouterr().out

def test_the_check_opens_what_training_opens(own, tmp_path):
    "Behind a link to a folder, and an image that Pillow reads and training refuses."
    shutil.move(own/'train/n03028079', tmp_path/'elsewhere')
    (own/'train/n03028079').symlink_to(tmp_path/'elsewhere')
    bad, grey = own/'train/n03028079/bad.jpg', own/'val/n03028079/grey.tif'
    bad.write_bytes(b'xx'); Image.fromarray(np.zeros((8, 8), dtype=np.int32)).save(grey)
    faults = check_images(own)
    assert {*faults} == {bad, grey} and faults[bad] == 'not an image' and '32 bits' in faults[grey]
    assert {bad, grey} < set(image_files(own))

def test_endings_do_not_depend_on_the_machine(own, monkeypatch):
    import mimetypes
    monkeypatch.setattr(mimetypes, 'types_map', {})
    first = image_files(own)[0]
    for o in ('a.webp', 'b.JPEG', 'c.Tiff', 'd.txt', 'e.pdf'): shutil.copy(first, first.parent/o)
    assert {o.name for o in image_files(own)} >= {'a.webp', 'b.JPEG', 'c.Tiff'} and not {o.name for o in image_files(own)} & {'d.txt', 'e.pdf'}

@pytest.mark.parametrize('make', [get_dls, cached_dls])
def test_names_that_are_no_text(own, make):
    first = image_files(own)[0]
    try: shutil.copy(first, os.fsdecode(os.fsencode(first.parent) + b'/caf\xe9.jpg'))
    except OSError: pytest.skip('this file system takes no such names')
    assert len(make(own, 4, 32).train_ds) == 31

def test_a_class_folder_that_may_not_be_read(own, monkeypatch):
    "It is named, and does not vanish from the classes. (To the superuser nothing is forbidden.)"
    closed, scandir = str(own/'train/n03028079'), os.scandir
    def refuse(path):
        if str(path) == closed: raise PermissionError(13, 'Permission denied', closed)
        return scandir(path)
    monkeypatch.setattr(os, 'scandir', refuse)
    for look in (image_files, check_images, check_folder):
        with pytest.raises(PermissionError, match=f"{closed} can't be read .Permission denied.: change its permissions"): look(own)
