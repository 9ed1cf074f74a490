// Render the formulas that pymdownx.arithmatex marked as \(…\) and \[…\].
for (const element of document.querySelectorAll(".arithmatex")) {
  const displayMode = element.textContent.startsWith("\\[");
  katex.render(element.textContent.slice(2, -2), element, { displayMode, throwOnError: false });
}
