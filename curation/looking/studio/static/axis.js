// Axes are labelled with round numbers at even steps, within the range that the axis shows.

export function ticks(low, high, most) {
  const rough = (high - low) / most;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((times) => times * power).find((each) => each >= rough * 0.999);
  const found = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i += 1) found.push(Number((i * step).toPrecision(10)));
  return found;
}

// The upward axis counts clips: evenly up to 20, else by their logarithm, so that a bar of few clips is seen beside one of many.
export function upwards(most) {
  if (most <= 20) {
    const top = Math.max(1, most);
    return {at: (n) => n / top, ticks: ticks(0, top, 3).filter((n) => Number.isInteger(n))};
  }
  const top = Math.log1p(most);
  const tens = [0];
  for (let n = 1; n <= most; n *= 10) tens.push(n);
  return {at: (n) => Math.log1p(n) / top, ticks: tens.filter((n, i) => i < 2 || tens.length < 6 || i % 2 === tens.length % 2)};
}

export const short = (n) => (n >= 1e6 ? `${Number((n / 1e6).toPrecision(3))}M` : n >= 1e4 ? `${Number((n / 1e3).toPrecision(3))}k` : n.toLocaleString("en"));

export function bars(counts, at) {
  let path = "";
  counts.forEach((n, i) => {
    if (n) path += `M${i} 100V${(100 - 100 * at(n)).toFixed(2)}h.92V100z`;
  });
  return path;
}
