/** Signs of the buttons, 24 by 24, drawn in the text's colour. Devices get a stroke that shows while they are off. */

const SVG = "http://www.w3.org/2000/svg";

const PATHS = {
  microphone: "M12 3a3 3 0 0 0-3 3v5a3 3 0 0 0 6 0V6a3 3 0 0 0-3-3zM5.5 11a6.5 6.5 0 0 0 13 0M12 17.5V21",
  camera: "M3 7h11v10H3zM14 11l7-4v10l-7-4",
  screen: "M3 4h18v12H3zM8 20h8M12 13V7.5M9.5 9.5 12 7l2.5 2.5",
  save: "M12 4v10.5M8 10.5l4 4 4-4M5 19.5h14",
  chat: "M4 5h16v11H10l-4 4v-4H4z",
  leave: "M14 4H5v16h9M10 12h11M17.5 8.5 21 12l-3.5 3.5",
} as const;

const DEVICES: readonly string[] = ["microphone", "camera"];

export type Sign = keyof typeof PATHS;

export function icon(sign: Sign): SVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const draw = (line: string, name = ""): void => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("d", line);
    if (name) path.classList.add(name);
    svg.append(path);
  };
  draw(PATHS[sign]);
  if (DEVICES.includes(sign)) draw("M3 3 21 21", "off");
  return svg;
}
