// Asks the questions of quiz(seed=…) of the package, with its formulas and its words.
{
  const {begin, h, title, said} = window.courseWidgets // ui.js comes before
  let ids = 0
  const build = () => {
    const {questions, parseNumbers, isRight, show, BadInput} = courseNumbers
    const id = `w-answer-${++ids}`,
      words = said(),
      score = h('span', {class: 'w-score'})
    const text = h('p', {class: 'w-question', id: `${id}-question`}),
      seeded = h('code')
    const input = h('input', {
      type: 'text',
      id,
      autocomplete: 'off',
      spellcheck: 'false',
      'aria-describedby': `${id}-question`,
    })
    const label = h('label', {for: id}),
      check = h('button', {type: 'submit', class: 'w-main'}, 'Check')
    const reveal = h('button', {type: 'button', onclick: () => judge(null)}, 'Show the answer')
    const next = h(
      'button',
      {
        type: 'button',
        onclick: () => {
          ask()
          input.focus()
        },
      },
      'Next question',
    )
    const form = h(
      'form',
      {onsubmit: submit},
      text,
      label,
      input,
      h('div', {class: 'w-controls'}, check, reveal, next, score),
    )
    let asked = 0,
      right = 0,
      stream,
      question,
      open

    function begun() {
      // fresh questions, the same as Python's with this seed
      const [seed] = crypto.getRandomValues(new Uint32Array(1))
      stream = questions(seed)
      seeded.textContent = `quiz(seed=${seed})`
      ask()
    }
    function ask() {
      question = stream.next().value
      open = true
      const n = question.answer.length
      text.textContent = question.text
      label.textContent = n === 1 ? 'Your answer' : `Your answer: ${n} numbers, with spaces between them`
      input.value = ''
      input.readOnly = check.disabled = reveal.disabled = false
      next.classList.remove('w-main')
      check.classList.add('w-main')
      words.className = 'w-said'
      words.textContent = ''
    }
    function submit(event) {
      event.preventDefault()
      if (!open) return
      if (!input.value.trim()) {
        words.className = 'w-said'
        words.textContent = 'Type an answer first, or ask to see it.'
        return
      }
      try {
        judge(parseNumbers(input.value.trim(), question.answer.length))
      } catch (e) {
        if (!(e instanceof BadInput)) throw e
        words.className = 'w-said'
        words.textContent = e.message
      }
    }
    function judge(values) {
      // null: the reader asked for the answer
      const good = values !== null && isRight(question, values)
      open = false
      asked++
      right += good
      words.className = `w-said ${good ? 'w-right' : 'w-wrong'}`
      words.replaceChildren(
        h('b', {}, good ? 'Right.' : `${values === null ? 'The answer' : 'No, it'} is ${show(question.answer)}.`),
        ` ${question.why}`,
      )
      score.textContent = `${right} of ${asked} right`
      input.readOnly = check.disabled = reveal.disabled = true
      check.classList.remove('w-main')
      next.classList.add('w-main')
      next.focus()
    }
    begun()
    return [
      title('The quiz.', 'Five kinds of question, with fresh numbers each time.'),
      form,
      words,
      h(
        'p',
        {class: 'w-hint'},
        'Fractions and percents count, too: 0.25, 1/4, 25%. In Python, ',
        seeded,
        ' asks the same questions.',
      ),
    ]
  }
  build.label = 'The quiz'
  begin('quiz', build, false)
}
