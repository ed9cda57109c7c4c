const form = document.querySelector("#sign");
const list = document.querySelector("#entries");
const problem = document.querySelector("#problem");

async function show() {
  const answer = await fetch("entries");
  const { entries } = await answer.json();
  list.replaceChildren(
    ...entries.toReversed().map(({ name, message }) => {
      const item = document.createElement("li");
      const who = document.createElement("strong");
      who.textContent = name;
      item.append(who, "\n", message);
      return item;
    }),
  );
}

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const entry = Object.fromEntries(new FormData(form));
  const answer = await fetch("entries", { method: "POST", body: JSON.stringify(entry) });
  problem.textContent = answer.ok ? "" : (await answer.json()).error;
  if (answer.ok) {
    form.reset();
    await show();
  }
});

show();
