"The numerical questions against torch, torchvision and fastai, the reading of replies, and the quiz in a process of its own."
import json, os, random, re, subprocess, sys
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from hypothesis import example, given, settings, strategies as st
from torch import nn

from conftest import ROOT
from imagenette_course.core import BadInput
from imagenette_course.questionnaire import *
from imagenette_course.questionnaire import _show
from fastai.vision.all import Callback, CrossEntropyLossFlat, DataLoader, DataLoaders, Learner
from torchvision.transforms.v2 import MixUp

seeds = st.integers(0, 2**32)
fast = settings(deadline=None, max_examples=50)

def numbers_in(text): return [float(o) for o in re.findall(r'\d+(?:\.\d+)?', text)]
def ask_kind(kind, seed): return kind(random.Random(seed))
def scripted(*replies):
    it = iter(replies)
    return lambda prompt: next(it)
def questions(n, seed):
    "As `quiz` asks them: no kind comes again before all others have come."
    rng = random.Random(seed)
    for i in range(n):
        if i % len(KINDS) == 0: kinds = rng.sample(KINDS, len(KINDS))
        yield kinds[i % len(KINDS)](rng)

@pytest.fixture(scope='module')
def learn():
    "Twelve numbers to classify, and a network of one layer that counts the items it sees."
    items = [(torch.randn(3), i % 2) for i in range(12)]
    dls = DataLoaders(*[DataLoader(items, bs=4, num_workers=0, shuffle=False) for _ in range(2)])
    for dl in dls.loaders: dl.dataset = Items(items)
    return Learner(dls, nn.Linear(3, 2), loss_func=CrossEntropyLossFlat())

class Items(list):
    "A list with the switch between training and validation that `tta` turns."
    def set_split_idx(self, i):
        return nullcontext()

# what the answers are

@pytest.mark.smoke
@fast
@given(seed=seeds)
def test_smoothed_target_is_the_one_in_the_loss_of_torch(seed):
    q = ask_kind(smoothed_question, seed)
    eps,n,i,*_ = numbers_in(q.text)
    logits = torch.randn(1, int(n), dtype=torch.float64, requires_grad=True)
    F.cross_entropy(logits, torch.tensor([int(i)]), label_smoothing=eps).backward()
    implied = F.softmax(logits, 1) - logits.grad # the gradient is the softmax minus the target
    assert q.answer == pytest.approx(implied[0].tolist(), abs=1e-9) and sum(q.answer) == pytest.approx(1)

@fast
@given(seed=seeds)
def test_mixed_target_is_that_of_torchvision(seed):
    q = ask_kind(mixed_question, seed)
    lam,a,_,b,n,*_ = numbers_in(q.text)
    mix = MixUp(num_classes=int(n))
    mix.make_params = lambda flat: dict(lam=lam)
    _,targets = mix(torch.rand(2, 3, 4, 4), torch.tensor([int(a), int(b)])) # each image with the one before it
    assert q.answer == pytest.approx(targets[0].tolist(), abs=1e-6)

def test_both_images_may_be_of_one_class():
    same = [q for q in (ask_kind(mixed_question, s) for s in range(100)) if max(q.answer) == 1]
    assert 3 < len(same) < 50 and all('one-hot' in q.why for q in same)

@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_tta_costs_what_fastai_runs(learn, seed):
    q = ask_kind(tta_question, seed)
    seconds,n = numbers_in(q.text)
    calls = []
    class Count(Callback):
        def after_pred(self): calls.append(len(self.x))
    with learn.no_bar(), learn.no_logging(), learn.added_cbs(Count()):
        learn.get_preds(); once = sum(calls); calls.clear()
        learn.tta(n=int(n))
    assert once == 12 and q.answer == (seconds*sum(calls)/once,)

@settings(deadline=None, max_examples=10)
@given(seed=seeds)
def test_epochs_are_those_that_fastai_trains(learn, seed):
    q = ask_kind(epochs_question, seed)
    small,large = map(int, numbers_in(q.text))
    epochs = []
    class Count(Callback):
        def after_epoch(self): epochs.append(1)
    with learn.no_bar(), learn.no_logging():
        learn.fit_one_cycle(small, 1e-3, cbs=Count())
        learn.fine_tune(large, 1e-3, cbs=Count())
    assert q.answer == (len(epochs),)

@fast
@given(seed=seeds)
def test_pixels_are_those_of_the_images(seed):
    q = ask_kind(pixels_question, seed)
    e1,s1,e2,s2,*_ = map(int, numbers_in(q.text))
    assert q.answer == (sum(torch.empty(s, s).numel() for e,s in ((e1, s1), (e2, s2)) for _ in range(e)),)
    assert q.tol == pytest.approx(.01*q.answer[0])

# what counts as right

@fast
@given(seed=seeds, kind=st.sampled_from(KINDS))
def test_rounded_replies_count_and_the_shown_answer_too(kind, seed):
    q = ask_kind(kind, seed)
    n = len(q.answer)
    assert q == ask_kind(kind, seed) and q.text and q.why
    assert is_right(q, list(q.answer))
    rounded = [f'{v:.2f}' if n > 1 else f'{v:.3g}' if kind is pixels_question else f'{v:.0f}' for v in q.answer]
    assert is_right(q, parse_numbers(', '.join(rounded), n))
    assert is_right(q, parse_numbers(_show(q.answer), n))
    assert is_right(q, parse_numbers(' '.join(f'{100*v}%' for v in q.answer), n))
    worse = [v + 1.01*q.tol + 1e-6 for v in q.answer]
    assert not is_right(q, worse) and not is_right(q, [*q.answer[:-1], worse[-1]])
    assert not is_right(q, [*q.answer, 0.]) and not is_right(q, list(q.answer[:-1]))
    assert not is_right(q, [float('nan')]*n)

@fast
@given(seed=seeds)
def test_common_mistakes_of_smoothing_do_not_count(seed):
    q = ask_kind(smoothed_question, seed)
    eps,n,i,*_ = numbers_in(q.text)
    n,i = int(n), int(i)
    put = lambda right, wrong, place=i: [right if k == place else wrong for k in range(n)]
    for mistake in (put(1-eps, eps/(n-1)), put(1-eps, eps), put(1-(n-1)*eps, eps), put(1-eps, 0.), put(1., 0.), put(1-eps, eps/n),
                    put(1-eps+eps/n, eps/n, (i+1) % n), put(1-eps+eps/n, eps/n, (i-1) % n)):
        assert not is_right(q, mistake), mistake

@fast
@given(seed=seeds)
def test_common_mistakes_of_the_others_do_not_count(seed):
    q = ask_kind(mixed_question, seed)
    lam,a,_,b,n,*_ = numbers_in(q.text)
    if a != b: # shares the other way round, one label kept
        assert not is_right(q, [lam*(k == b) + (1-lam)*(k == a) for k in range(int(n))])
        assert not is_right(q, [float(k == (a if lam > .5 else b)) for k in range(int(n))])
    q = ask_kind(tta_question, seed)
    seconds,n = numbers_in(q.text)
    assert not is_right(q, [seconds*n]) and not is_right(q, [seconds]) and not is_right(q, [n+1])
    q = ask_kind(epochs_question, seed)
    assert not is_right(q, [sum(numbers_in(q.text))])
    q = ask_kind(pixels_question, seed)
    e1,s1,e2,s2,*_ = numbers_in(q.text)
    for mistake in (e1*s1 + e2*s2, e2*s2**2, s1**2 + s2**2, (e1 + e2)*s2**2, e1*s1**2): assert not is_right(q, [mistake])

# how replies are read

@pytest.mark.smoke
def test_numbers_in_many_forms():
    for text in ('0.02, 0.92', '[.02 .92]', '1/50 23/25', '1 / 50, 23/25', '2 % 92 %', '(2e-2; 9.2E-1)', 'tensor([0.0200, 0.9200])',
                 '{+.02,0.92}', ' 0.02\t0.92 \n', '0.02,0.92'): assert parse_numbers(text, 2) == pytest.approx([.02, .92])
    for text,value in (('3.5e6', 3.5e6), ('3,500,000', 3.5e6), ('87%', .87), ('-1', -1), ('120 s', 120), ('120s', 120), ('7.', 7),
                       ('.5', .5), ('1,234.5', 1234.5), ('101,376 px', 101376), ('10 epochs', 10), ('7/2', 3.5)):
        assert parse_numbers(text, 1) == pytest.approx([value])

def test_what_can_not_be_read():
    for text,n,words in (('', 1, '1 number is expected, such as 0.25, 1/4, 25% or 3.5e6; 0 found'), ('.1 .2', 3, '3 numbers are.*2 found'),
                         ('two', 1, "'two' is not a number"), ('1/0.0', 1, 'is not'), ('1e999', 1, "'1e999' is not"), ('nan', 1, "'nan'"),
                         ('0,02', 1, '2 found'), ('3.5 million', 1, "'million'"), ('1/2/3', 1, 'is not'), ('%', 1, 'is not'),
                         ('x'*10_000, 1, "'x{20}' is not"), ('__import__("os").getcwd()', 1, 'is not')):
        with pytest.raises(BadInput, match=words) as e: parse_numbers(text, n)
        assert '\n' not in str(e.value) and len(str(e.value)) < 150

@settings(deadline=None, max_examples=300)
@given(text=st.text(max_size=40), n=st.integers(1, 4))
@example(text='１２', n=1)
@example(text='²', n=1)
@example(text='9'*400, n=1)
def test_any_text_gives_finite_numbers_or_bad_input(text, n):
    try: values = parse_numbers(text, n)
    except BadInput as e: assert str(n) in str(e) and '\n' not in str(e)
    else: assert len(values) == n and all(abs(v) < float('inf') for v in values)

@fast
@given(values=st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=1, max_size=6))
def test_what_python_writes_can_be_read(values):
    for text in (str(values), ' '.join(map(repr, values)), str(tuple(values))): assert parse_numbers(text, len(values)) == values
    text = f'{values[0]:,.3f}'
    assert parse_numbers(text, 1) == [round(values[0], 3)]

# the quiz

def answers(seed, n): return [' '.join(map(repr, q.answer)) for q in questions(n, seed)]

def test_all_right(capsys):
    assert quiz(7, ask=scripted(*answers(3, 7)), seed=3) == (7, 7)
    out = capsys.readouterr().out
    assert out.count('Right.') == 7 and out.endswith('\n7 of 7 right.\n') and '1 of 7. ' in out and '7 of 7. ' in out

def test_one_of_each_kind_by_default(capsys):
    assert quiz(ask=lambda prompt: '') == (0, len(KINDS))
    out = capsys.readouterr().out
    for words in ('Label smoothing', 'Mixup', 'learn.tta', 'fine_tune', 'colours not counted'): assert out.count(words) >= 1
    assert len({q.text.split()[0] for q in questions(5, 0)}) >= 4

def test_fresh_numbers_unless_seeded(capsys):
    def texts(**kwargs):
        quiz(5, ask=lambda prompt: '', **kwargs)
        return capsys.readouterr().out
    assert texts(seed=1) == texts(seed=1) != texts(seed=2) and texts() != texts()

def test_wrong_empty_unreadable_and_end(capsys):
    right = answers(5, 3)
    assert quiz(4, ask=scripted('what?', right[0], '999 '*len(right[1].split()), '', 'Q'), seed=5) == (1, 3)
    out = capsys.readouterr().out
    shown = [_show(q.answer) for q in questions(3, 5)]
    assert "'what?' is not a number" in out and f'No, it is {shown[1]}.' in out and f'The answer is {shown[2]}.' in out
    assert out.endswith('\n1 of 3 right.\n')

def test_after_three_unreadable_replies_it_goes_on():
    asked = []
    assert quiz(2, ask=lambda prompt: asked.append(prompt) or 'y') == (0, 2)
    assert len(asked) == 6

def test_ctrl_d_and_ctrl_c_end_it(capsys):
    for error in (EOFError, KeyboardInterrupt):
        replies = iter(answers(5, 1))
        def ask(prompt):
            for reply in replies: return reply
            raise error
        assert quiz(5, ask=ask, seed=5) == (1, 1)
        assert capsys.readouterr().out.endswith('1 of 1 right.\n')

def test_an_error_in_ask_is_not_hidden():
    def ask(prompt): raise OSError('mine')
    with pytest.raises(OSError, match='mine'): quiz(ask=ask)

def test_bad_arguments():
    for kw,words in ((dict(n=0), 'n=0: it must be a whole number of 1 or more'), (dict(n='5'), "n='5'"), (dict(seed=-1), 'seed=-1'),
                     (dict(ask='me'), "ask='me': it must be a function")):
        with pytest.raises(BadInput, match=words): quiz(**{**dict(ask=lambda prompt: ''), **kw})

def test_nobody_is_asked_under_a_test(capsys):
    assert quiz() == (0, 0) # IN_TEST is set
    assert capsys.readouterr().out.endswith('0 of 0 right.\n')

def test_without_a_reader_it_ends(monkeypatch):
    monkeypatch.delenv('IN_TEST')
    for error in (EOFError, RuntimeError('input(): lost sys.stdin'), OSError('captured')):
        def no_input(prompt): raise error
        monkeypatch.setattr('builtins.input', no_input)
        assert quiz() == (0, 0)

def test_input_is_looked_up_when_it_is_needed(monkeypatch):
    "A notebook replaces `input` after the import."
    monkeypatch.delenv('IN_TEST')
    monkeypatch.setattr('builtins.input', scripted(*answers(2, 2)))
    assert quiz(2, seed=2) == (2, 2)

def shell(code, **kwargs):
    env = {k: v for k,v in os.environ.items() if k != 'IN_TEST'}
    return subprocess.run([sys.executable, '-c', f'from imagenette_course.questionnaire import quiz; {code}'], capture_output=True, text=True, timeout=120, env=env, **kwargs)

def test_from_a_shell():
    proc = shell('quiz(2, seed=4); quiz(9, seed=4); quiz()', input='\n'.join([*answers(4, 2), '', 'q', 'nothing']) + '\n')
    assert proc.returncode == 0 and proc.stderr == ''
    assert re.findall(r'\d of \d right', proc.stdout) == ['2 of 2 right', '0 of 1 right', '0 of 0 right'] # the last at the end of the input

@pytest.mark.slow
def test_in_a_notebook_kernel():
    "With a reader the prompts reach it, without one the quiz ends."
    from jupyter_client.manager import start_new_kernel
    env = {k: v for k,v in os.environ.items() if k != 'IN_TEST'}
    manager,client = start_new_kernel(kernel_name='python3', env=env)
    out, replies = [], iter([*answers(4, 1), 'q'])
    def show(msg): out.append(msg['content'].get('text', '') + str(msg['content'].get('evalue', '')))
    try:
        client.execute_interactive('from imagenette_course.questionnaire import quiz; quiz(seed=4);', allow_stdin=True, timeout=100,
                                   output_hook=show, stdin_hook=lambda msg: client.input(next(replies)))
        client.execute_interactive('quiz(seed=4);', allow_stdin=False, timeout=100, output_hook=show)
    finally: manager.shutdown_kernel(now=True)
    assert re.findall(r'\d of \d right', ''.join(out)) == ['1 of 1 right', '0 of 0 right']

# the notebook

def test_all_questions_are_there_and_their_answers_unfold():
    nb = json.loads((ROOT/'nbs/07_questionnaire.ipynb').read_text())
    text = '\n\n'.join(''.join(o['source']) for o in nb['cells'] if o['cell_type'] == 'markdown')
    heads = re.findall(r'^### ((?:Further research )?\d+) · ', text, re.M)
    assert heads == [*map(str, range(1, 15)), *(f'Further research {i}' for i in range(1, 5))]
    for part in re.split(r'^### (?=(?:Further research )?\d+ · )', text, flags=re.M)[1:]:
        assert part.count('<details>\n<summary><b>') == 1 and re.search(r'\*\[?Chapter 0\d, ', part), part[:40]
    folds = re.findall(r'(^<details>\n<summary>[^\n]+</summary>\n\n(?:.+?)\n\n</details>(?:\n\n|\Z))', text, re.M | re.S) # Markdown needs the empty lines
    assert len(folds) == text.count('<details>') == text.count('</details>') == 21
    assert all(o.count('<summary>') == 1 and o.count('```') % 2 == 0 for o in folds)
