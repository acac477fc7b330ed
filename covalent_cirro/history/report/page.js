"use strict";
// Keeps the page of `cirro report --watch` up to date: asks for the page again, and puts the new content in place.
(() => {
  const EVERY_MS = 2000;
  let tag = "";

  // What is at the top of the window stays there when something above it becomes longer.
  function anchor() {
    if (window.scrollY === 0) return null;
    const seen = [...document.querySelectorAll("main [id]")].filter((each) => each.getBoundingClientRect().top >= 0);
    return seen.length ? { id: seen[0].id, top: seen[0].getBoundingClientRect().top } : null;
  }

  function show(html) {
    const next = new DOMParser().parseFromString(html, "text/html");
    for (const made of next.querySelectorAll("details[id]")) {
      const shown = document.getElementById(made.id);
      if (shown) made.open = shown.open;
    }
    const focused = document.activeElement?.closest("details[id]")?.id;
    const at = anchor();
    document.querySelector("main").replaceWith(next.querySelector("main"));
    document.title = next.title;
    if (focused) document.getElementById(focused)?.querySelector("summary").focus({ preventScroll: true });
    const same = at && document.getElementById(at.id);
    if (same) window.scrollBy(0, same.getBoundingClientRect().top - at.top);
  }

  // A text that is being selected must not change under the pointer.
  const isBusy = () => document.hidden || !(document.getSelection()?.isCollapsed ?? true);

  async function look() {
    const answer = await fetch(location.href, { cache: "no-store", headers: tag ? { "If-None-Match": tag } : {} });
    if (answer.status === 304) return;
    if (!answer.ok) throw new Error(answer.statusText);
    const html = await answer.text();
    if (isBusy()) return;
    show(html);
    tag = answer.headers.get("ETag") ?? "";
  }

  async function go() {
    if (!isBusy()) {
      const lost = document.getElementById("lost-contact");
      try {
        await look();
        lost.hidden = true;
      } catch {
        lost.hidden = false;
      }
    }
    setTimeout(go, EVERY_MS);
  }

  go();
})();
