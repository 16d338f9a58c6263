//! QR codes for the phone app: what a camera reads from a screen.

use qrcode::{Color, EcLevel, QrCode};

/// A text as rows of 0 and 1; none when it is too long for a code.
pub(super) fn rows(text: &str) -> Option<Vec<String>> {
    let code = QrCode::with_error_correction_level(text, EcLevel::M).ok()?;
    let colors = code.to_colors();
    let row = |cells: &[Color]| {
        let cell = |c: &Color| c.select('1', '0');
        cells.iter().map(cell).collect()
    };
    Some(colors.chunks(code.width()).map(row).collect())
}
