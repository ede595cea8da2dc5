// What the pages share. Whatever comes from the machine is set as text, never as markup.

export const $ = (id) => document.getElementById(id);

export function decoded(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export function say(text) {
  $("message").textContent = text;
  $("message").hidden = !text;
}

async function problemOf(response) {
  try {
    const problem = await response.json();
    return problem.detail || problem.title;
  } catch {
    return `The machine answered ${response.status}.`;
  }
}

export async function call(url, options) {
  const response = await fetch(url, options);
  if (!response.ok) throw new Error(await problemOf(response));
  return response;
}

export async function attempt(action) {
  try {
    say("");
    await action();
  } catch (error) {
    say(error instanceof TypeError ? "The machine cannot be reached." : error.message);
  }
}

export function sizeText(bytes) {
  if (bytes === null) return "";
  const units = ["bytes", "KB", "MB", "GB", "TB"];
  let step = 0;
  while (bytes >= 1000 && step < units.length - 1) {
    bytes /= 1000;
    step += 1;
  }
  if (bytes === 1 && !step) return "1 byte";
  return `${step ? bytes.toFixed(bytes < 10 ? 1 : 0) : bytes} ${units[step]}`;
}

export function ask(text, { input = false, yes = "OK" } = {}) {
  const dialog = $("ask");
  $("ask-text").textContent = text;
  $("ask-input").hidden = !input;
  $("ask-input").required = input;
  $("ask-input").value = "";
  $("ask-yes").textContent = yes;
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      const agreed = dialog.returnValue === "yes";
      resolve(agreed && input ? $("ask-input").value.trim() : agreed);
    }, { once: true });
  });
}

$("ask-no").addEventListener("click", () => $("ask").close(""));
